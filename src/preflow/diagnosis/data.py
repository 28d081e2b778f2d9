"""What the pairs teach: a cue of form in place of the preference, labels that disagree, too few of them, or nothing."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import PairMeasures, RunMeasurements
from preflow.fingerprints.files import json_digest
from preflow.maths.intervals import Interval, wilson

Bools = NDArray[np.bool_]
#: z of a two-sided 95 % interval and of 80 % power.
_Z_INTERVAL, _Z_POWER = 1.959964, 0.841621
_FEWEST = 30
_FOLLOWS = 0.4
_FOLDS = 4
_NOISE = 0.15
_NAMED = 5
_CEILING = 0.9
_OFF_POLICY = 1.0
_CONTRADICTED = 0.05


def pairs_needed(share: float, chance: float = 0.5) -> int:
    """Pairs at which a share differs from chance: 95 % interval, 80 % power (normal approximation)."""
    gain = abs(share - chance)
    return math.ceil(((_Z_INTERVAL + _Z_POWER) / gain) ** 2 * share * (1 - share)) if gain > 0 else 0


def reward_without_preference(run: RunMeasurements) -> Iterator[RunFinding]:
    """Rewards order the pairs better than chance, while the model's own ordering became worse."""
    gain = run.evaluation.get("comparison", {}).get("preference_accuracy_gain")
    if gain is None or not run.has_learnt() or gain["high"] >= 0 or run.recipe.dpo is None:
        return
    accuracy = run.measure("dpo", "reward_accuracy")
    assert accuracy is not None
    yield RunFinding(
        "reward_without_preference",
        "the reward rose while the model prefers the chosen response less often than before",
        f"reward accuracy {accuracy['value']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}], preference accuracy "
        f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
        f"dpo.beta: {min(2.0, 3 * run.recipe.dpo.beta):g}",
        beyond(1 - 20 * gain["high"]),
    )


def cues(run: RunMeasurements) -> Iterator[RunFinding]:
    """The reward follows length, or another cue of form, where the label does not."""
    if run.pairs is None or not run.has_learnt():
        return
    margins = run.pairs.margins()
    found = [_cue(name, differs, margins) for name, differs in _all_cues(run.pairs).items()]
    worst = max((each for each in found if each is not None), key=lambda each: each.strength, default=None)
    if worst is not None:
        yield worst


def _all_cues(pairs: PairMeasures) -> Mapping[str, NDArray[np.float64]]:
    """By cue, how much more of it chosen has than rejected, shape ``(N,)``."""
    return {"length": pairs.chosen_tokens - pairs.rejected_tokens, **pairs.cues}


def _cue(name: str, differs: NDArray[np.float64], margins: NDArray[np.float64]) -> RunFinding | None:
    """Whether rewards follow one cue: right where it favours chosen, not better than chance where it does not."""
    has = differs != 0
    if has.sum() < _FEWEST:
        return None
    follows = rank_correlation(differs[has], margins[has])
    with_it, against = (differs > 0, differs < 0) if follows > 0 else (differs < 0, differs > 0)
    right = margins > 0
    if abs(follows) < _FOLLOWS or min(with_it.sum(), against.sum()) == 0:
        return None
    parts = [wilson(int(right[side].sum()), int(side.sum())) for side in (with_it, against)]
    if parts[0].low <= 0.5 or parts[1].low > 0.5:
        return None
    direction = ("more" if follows > 0 else "less") + (" of it" if name == "length" else f" of {name}")
    evidence = (
        f"rank correlation of the reward margin with {name} {follows:+.2f}; reward accuracy {parts[0].value:.2f} on "
        f"{with_it.sum()} pairs whose chosen response has {direction}, {parts[1].value:.2f} [{parts[1].low:.2f}, "
        f"{parts[1].high:.2f}] on {against.sum()} others"
    )
    data = wilson(int(with_it.sum()), int(has.sum()))
    remedy = _against_cue(name, int(with_it.sum()) - int(against.sum()))
    if data.low > 0.5 and _balanced_low(parts, with_it, against) <= 0.5:
        evidence += f"; {name} alone predicts the label of {data.value:.0%} of the pairs"
        what = "the pairs teach nothing beyond a cue of form"
        return RunFinding("no_signal_beyond_cue", what, evidence, remedy, beyond(abs(follows) / _FOLLOWS))
    what = "the reward follows a cue of form: where the cue speaks against the label, it is no better than chance"
    return RunFinding("cue_exploited", what, evidence, remedy, beyond(abs(follows) / _FOLLOWS))


def _balanced_low(parts: list[Interval], with_it: Bools, against: Bools) -> float:
    """Lower end of the mean of both parts' accuracies: what is right beyond the cue."""
    counts = (int(with_it.sum()), int(against.sum()))
    spread = math.sqrt(sum(side.value * (1 - side.value) / n for side, n in zip(parts, counts, strict=True))) / 2
    return sum(side.value for side in parts) / 2 - _Z_INTERVAL * spread


def _against_cue(name: str, surplus: int) -> str:
    if name == "length":
        return "dpo.ld_alpha: 0.5"
    many = f"{surplus} more" if surplus > 0 else "as many"
    return f"pairs that balance the cue: {many} whose rejected response has it, for every so many held-out ones"


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's correlation; 0 where one of both does not vary."""
    ranks = [_ranks(values) for values in (first, second)]
    spread = ranks[0].std() * ranks[1].std()
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread) if spread else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks


def label_noise(run: RunMeasurements) -> Iterator[RunFinding]:
    """Pairs of which the model is surest are ordered against the label as often as others, in every fold.

    A weak signal makes unsure pairs wrong and sure ones right. Labels that were flipped by chance are wrong at every
    margin, so the error among the surest half estimates their share.
    """
    if run.pairs is None or not run.has_learnt() or len(run.pairs) < 2 * _FEWEST:
        return
    margins = run.pairs.margins()
    sure = np.abs(margins) >= np.median(np.abs(margins))
    wrong = margins < 0
    noise = wilson(int(wrong[sure].sum()), int(sure.sum()))
    fold = np.array([int(json_digest([source])[:8], 16) % _FOLDS for source in run.pairs.sources])
    folds = [
        float(wrong[sure & (fold == number)].mean()) for number in range(_FOLDS) if (sure & (fold == number)).any()
    ]
    others = float(wrong[~sure].mean())
    if noise.low <= _NOISE or min(folds) <= _NOISE / 2 or others > noise.value + 0.1:
        return
    rows = _against_every_model(run.pairs)
    yield RunFinding(
        "label_noise",
        "labels disagree: the pairs that the model is surest of are ordered against the label as often as the others",
        f"{noise.value:.0%} [{noise.low:.0%}, {noise.high:.0%}] of the surest half against the label, "
        f"{min(folds):.0%} to {max(folds):.0%} over {_FOLDS} folds, {others:.0%} of the others",
        f"dpo.loss_type: robust with dpo.label_smoothing: {min(0.4, noise.value):.2f}, and a look at the named rows",
        beyond(noise.low / _NOISE),
        rows,
    )


def _against_every_model(pairs: PairMeasures) -> tuple[str, ...]:
    """The pairs that every model, and the reward, order against the label, the clearest first."""
    margins = [pairs.per_token(model) for model in pairs.chosen] + [pairs.margins()]
    scaled = [margin / max(float(np.abs(margin).max()), 1e-9) for margin in margins]
    every = np.maximum.reduce(scaled)  # below zero where each is
    order = np.argsort(every, kind="stable")
    return tuple(pairs.sources[place] for place in order[:_NAMED] if every[place] < 0)


def contradictions(run: RunMeasurements) -> Iterator[RunFinding]:
    """Many rows say the opposite of others about the same answers."""
    rows, found = run.data.get("rows_in", 0), run.data.get("findings", {})
    named = {name: int(found[name]["count"]) for name in ("contradiction", "preference_cycle") if name in found}
    count = sum(named.values())
    if not rows or count <= _CONTRADICTED * rows:
        return
    examples = tuple(str(each["at"]) for name in named for each in found[name].get("examples", ()) if "at" in each)
    yield RunFinding(
        "contradictions",
        "rows prefer one answer here and the other there, so others of their kind are probably chance as well",
        f"{count} of {rows} rows: " + ", ".join(f"{each} {name}" for name, each in named.items()),
        f"new labels for these {count} rows, which quarantine.jsonl has",
        beyond(count / rows / _CONTRADICTED),
        examples[:_NAMED],
    )


def too_few_pairs(run: RunMeasurements) -> Iterator[RunFinding]:
    """The model has moved, and what was gained may be chance with so many pairs; or nothing was gained."""
    accuracy = run.measure("dpo", "reward_accuracy")
    count = int(run.evaluation.get("n_pairs", 0))
    if accuracy is None or not count or run.is_still() or accuracy["low"] > 0.5:
        return
    measured = (
        f"reward accuracy {accuracy['value']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}] on {count} pairs"
    )
    trained = int(run.metrics.get("dpo/pairs", 0))
    kl = f", KL {run.kl:.2g}" if run.kl is not None else ""
    needed = pairs_needed(accuracy["value"])
    if accuracy["value"] > 0.5 and count < needed <= 20 * count:
        yield RunFinding(
            "too_few_pairs",
            "what was learnt, if it is as much as it seems, may be chance on so few held-out pairs",
            measured,
            f"{needed} held-out pairs",
            beyond(needed / count),
        )
    elif count >= _FEWEST:
        yield RunFinding(
            "not_learnable",
            "the model has moved and orders held-out pairs no better than before: such pairs do not teach such a model",
            f"{measured}{kl} after {trained} training pairs",
            f"{max(1000, 4 * trained)} training pairs, or those alone on which raters agree",
            beyond(1 + 2 * max(0.0, 0.5 - accuracy["value"]) + count / 500),
        )


def at_ceiling(run: RunMeasurements) -> Iterator[RunFinding]:
    """The reference prefers the chosen response nearly always, before DPO begins."""
    if run.pairs is None or not len(run.pairs):
        return
    right = run.pairs.per_token(run.pairs.reference) > 0
    share = wilson(int(right.sum()), len(right))
    if share.low <= _CEILING:
        return
    sft = run.pairs.reference == "sft"
    yield RunFinding(
        "reference_at_ceiling",
        "the reference prefers the chosen response nearly always, so DPO has nothing left to teach",
        f"preference accuracy {share.value:.2f} [{share.low:.2f}, {share.high:.2f}] before DPO",
        "strategy: sft" if sft else "pairs whose rejected response the model itself would give",
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
    first = "strategy: two-stage" if name == "base" else "sft.num_train_epochs: 2"
    yield RunFinding(
        "off_policy",
        "chosen responses are not what the reference would say, so DPO changes what it never samples",
        f"perplexity of chosen {math.exp(nats):.0f} under the {name} model, {math.exp(usual):.0f} by its own entropy",
        f"{first} with the chosen responses as sft.dataset",
        beyond((nats - usual) / _OFF_POLICY),
    )
