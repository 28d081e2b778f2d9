"""What the pairs teach: no preference, too little to be known, nothing, the opposite, or what was known before."""

import math
from collections.abc import Iterator, Mapping

from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import RunMeasurements, tail
from preflow.diagnosis.remedies import longer, lower_rate, remedy, significant
from preflow.maths.intervals import wilson

#: z of a two-sided 95 % interval and of 80 % power.
_Z_INTERVAL, _Z_POWER = 1.959964, 0.841621
_FEWEST = 30
#: Accuracy that is hardly better than chance, and one that says that labels are reversed; upper ends of intervals.
_HARDLY, _REVERSED = 0.55, 0.35
_HIGHEST_BETA = 2.0
_CEILING = 0.9
_OFF_POLICY = 1.0
#: Passes of SFT after which more teach no more.
_PASSES = 2.0


def pairs_needed(count: int, half_width: float, gain: float) -> int:
    """Pairs at which a share that is so far from chance differs from it: 95 % interval, 80 % power.

    Normal approximation. An interval's width shrinks with the root of the pairs; where prompts have several pairs, the
    measured width has that in it.

    Args:
        count: Pairs that were measured.
        half_width: Half of the 95 % interval that they gave.
        gain: Distance of the share from chance.
    """
    return math.ceil(count * ((1 + _Z_POWER / _Z_INTERVAL) * half_width / gain) ** 2)


def reward_without_preference(run: RunMeasurements) -> Iterator[RunFinding]:
    """Rewards order the pairs better than chance, while the model's own ordering, or its answers, became worse."""
    dpo, accuracy = run.recipe.dpo, run.measure("dpo", "reward_accuracy")
    if dpo is None or accuracy is None or not run.has_learnt():
        return
    gain = run.evaluation.get("comparison", {}).get("preference_accuracy_gain")
    rate = run.judge.get("win_rate")
    worse, far = [], 0.0
    if gain is not None and gain["high"] < 0:
        worse.append(("prefers the chosen response less often than before", "preference accuracy", gain, "+.3f"))
        far = -20 * gain["high"]
    if rate is not None and rate["high"] < 0.5:
        worse.append(("loses against its reference before the judge", "win rate", rate, ".3f"))
        far = max(far, 20 * (0.5 - rate["high"]))
    if not worse:
        return
    stronger = {"dpo.beta": significant(min(_HIGHEST_BETA, 3 * dpo.beta))} if dpo.beta < _HIGHEST_BETA else None
    yield RunFinding(
        "reward_without_preference",
        "the reward rose while the model " + " and ".join(what for what, *_ in worse),
        f"reward accuracy {_interval(accuracy, '.2f')}, "
        + ", ".join(f"{name} {_interval(value, form)}" for _, name, value, form in worse),
        remedy(run.recipe, *([stronger] if stronger else []), *lower_rate(run.recipe), "fewer training pairs"),
        beyond(1 + far),
    )


def _interval(value: Mapping[str, float], form: str) -> str:
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def too_few_pairs(run: RunMeasurements) -> Iterator[RunFinding]:
    """The model has moved, and held-out pairs show no gain: the opposite, none, or one that may be chance."""
    accuracy = run.measure("dpo", "reward_accuracy")
    count = int(run.evaluation.get("n_pairs", 0))
    if accuracy is None or not count or run.is_still() or accuracy["low"] > 0.5:
        return
    measured = f"reward accuracy {_interval(accuracy, '.2f')} on {count} pairs"
    trained = int(run.metrics.get("dpo/pairs", 0))
    gain = max(accuracy["value"], _HARDLY) - 0.5
    needed = pairs_needed(count, (accuracy["high"] - accuracy["low"]) / 2, gain)
    if accuracy["high"] < _REVERSED:
        yield _reversed(run, measured, accuracy["high"])
    elif count < _FEWEST or (accuracy["high"] >= _HARDLY and needed > count):
        yield RunFinding(
            "too_few_pairs",
            "what was learnt, if it is as much as it seems, may be chance on so few held-out pairs",
            measured,
            f"{max(needed, _FEWEST)} held-out pairs, on which an accuracy of {0.5 + gain:.2f} would show",
            beyond(needed / count),
        )
    else:
        kl = f", KL {run.kl:.2g}" if run.kl is not None else ""
        yield RunFinding(
            "not_learnable",
            "the model has moved and orders held-out pairs hardly better than chance: such pairs do not teach such a "
            "model",
            f"{measured}{kl} after {trained} training pairs",
            f"{max(1000, 4 * trained)} training pairs, or those alone on which raters agree",
            beyond(1 + 2 * max(0.0, 0.5 - accuracy["value"]) + count / 500),
        )


def _reversed(run: RunMeasurements, measured: str, high: float) -> RunFinding:
    """Held-out pairs are ordered against their labels; training pairs too, or not."""
    _, trained = run.curve("rewards/accuracies")
    share = tail(trained)
    if share > 0.5 or math.isnan(share):
        what = "held-out pairs are ordered against their labels: one set has chosen and rejected the other way round"
        change = "chosen and rejected exchanged in the training data or in the held-out data"
    else:
        what = "training pairs too are ordered against their labels: the loss moved the model the wrong way"
        change = remedy(run.recipe, {"dpo.loss_type": "sigmoid"}, *lower_rate(run.recipe), "other pairs")
    evidence = f"{measured}, {share:.2f} on training pairs"
    return RunFinding("labels_reversed", what, evidence, change, beyond(0.5 / max(high, 1e-3)))


def at_ceiling(run: RunMeasurements) -> Iterator[RunFinding]:
    """The reference prefers the chosen response nearly always, before DPO begins."""
    if run.pairs is None or not len(run.pairs):
        return
    right = run.pairs.per_token(run.pairs.reference) > 0
    share = wilson(int(right.sum()), len(right))
    if share.low <= _CEILING:
        return
    sft, harder = run.pairs.reference == "sft", "pairs whose rejected response the model itself would give"
    yield RunFinding(
        "reference_at_ceiling",
        "the reference prefers the chosen response nearly always, so DPO has nothing left to teach",
        f"preference accuracy {share.value:.2f} [{share.low:.2f}, {share.high:.2f}] before DPO",
        remedy(run.recipe, *([{"strategy": "sft"}] if sft else []), harder),
        beyond(share.low / _CEILING),
    )


def off_policy(run: RunMeasurements) -> Iterator[RunFinding]:
    """Chosen responses are far from what the reference says: rarer by far than its own uncertainty explains.

    What a model samples takes as many nats per token as its entropy there. TRL logs the entropy of the first steps,
    at which policy and reference are one.
    """
    _, entropy = run.curve("entropy")
    if run.pairs is None or not len(run.pairs) or not len(entropy):
        return
    name = run.pairs.reference
    nats = -float(run.pairs.chosen[name].sum() / run.pairs.chosen_tokens.sum())
    usual = float(entropy[: max(1, len(entropy) // 10)].mean())
    if nats - usual <= _OFF_POLICY:
        return
    sft, with_chosen = run.recipe.sft, "with the chosen responses as sft.dataset"
    sampled = "chosen responses that the model itself samples (preflow augment)"
    change = sampled
    if name == "base":
        change = f"strategy: two-stage {with_chosen}"
    elif sft is not None and (sft.max_steps > 0 or sft.num_train_epochs < _PASSES):
        change = f"{remedy(run.recipe, *longer(run.recipe, 'sft', _PASSES), sampled)} {with_chosen}"
    yield RunFinding(
        "off_policy",
        "chosen responses are not what the reference would say, so DPO changes what it never samples",
        f"perplexity of chosen {math.exp(nats):.0f} under the {name} model, {math.exp(usual):.0f} by its own entropy",
        change,
        beyond((nats - usual) / _OFF_POLICY),
    )
