"""How far training went: hardly at all, not far enough, too far, or back to an earlier step."""

import math
from collections.abc import Iterator

import numpy as np

from preflow.config.checks.advice import usual_rates
from preflow.config.training import DpoSettings
from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import STILL_KL, STILL_NATS, RunMeasurements, tail
from preflow.diagnosis.remedies import (
    Change,
    higher_rate,
    longer,
    lower_rate,
    remedy,
    shorter,
    significant,
    smaller_steps,
    with_fine_tuning,
)
from preflow.maths.intervals import wilson

#: KL in nats per response at which adapters of 135M models had learnt most of what they did.
GOOD_KL = 1.0
_MOST_FASTER = 30.0
_FEW_STEPS = 20
_HIGH_BETA = 0.5
_SMALL_RANK = 4
_NEAR_LIMIT = 0.7
#: Passes over the pairs beyond which DPO memorises them.
_MOST_PASSES = 4
#: Pairs of a held-out evaluation that tell one step from another.
_MANY_PAIRS = 64


def fitting_rate(rate: float, kl: float, target: float = GOOD_KL) -> float:
    """The rate at which a run of the same length would reach a KL: KL grows with the square of the rate.

    Around the reference the KL is quadratic in the change of the weights, which Adam makes in proportion to the rate.
    On 551 human pairs (SmolLM2-135M, LoRA 16): 0.05 nats at 2e-5, 1.15 at 1e-4, 3.99 at 2e-4; the square says 1.25
    and 5 from the first of them.
    """
    return rate * min(_MOST_FASTER, math.sqrt(target / max(kl, 1e-9)))


def hardly_trained(run: RunMeasurements) -> Iterator[RunFinding]:
    """The policy is the reference still; named by the reason that the settings and the curves show."""
    dpo, moved = run.recipe.dpo, run.moved
    if not run.is_still() or dpo is None or moved is None:
        return
    accuracy = run.measure("dpo", "reward_accuracy")
    if accuracy is not None and accuracy["low"] > 0.9:  # little was to be changed
        return
    if "dpo/kept_step" in run.metrics:
        return  # it moved, and was put back: ``near_limit`` or ``stopped_early`` reports it
    steps = int(run.metrics.get("dpo/steps", 0))
    kl = "" if run.kl is None else f"KL {run.kl:.3g} nats per response, "
    evidence = f"{kl}margin {moved:.3g} nats after {steps} steps at {run.rate:g}"
    share = math.inf if run.kl is None else STILL_KL / max(run.kl, 1e-6)
    strength = beyond(min(share, STILL_NATS / max(abs(moved), 1e-6), 50.0))
    what = "the model has hardly left its reference, so nothing that was measured can tell whether the data teach it"
    more = "more training pairs"
    faster = 3 * run.rate if run.kl is None else fitting_rate(run.rate, run.kl)
    if 0 < steps < _FEW_STEPS:
        yield RunFinding("too_few_steps", what, evidence, _more_steps(run, dpo, steps), strength)
    elif dpo.beta > _HIGH_BETA:
        beta: Change = {"dpo.beta": 0.1}
        yield RunFinding(
            "beta_too_high", what, f"beta {dpo.beta:g}; {evidence}", remedy(run.recipe, beta, more), strength
        )
    elif run.recipe.tuning == "lora" and dpo.lora_r < _SMALL_RANK and run.rate >= usual_rates(run.recipe)[1]:
        rank: Change = {"lora_r": 16}
        yield RunFinding(
            "adapter_too_small", what, f"rank {dpo.lora_r}; {evidence}", remedy(run.recipe, rank, more), strength
        )
    else:
        change = remedy(run.recipe, *higher_rate(run.recipe, faster), *smaller_steps(dpo, 2.0), more)
        yield RunFinding("hardly_trained", what, evidence, change, strength)


def _more_steps(run: RunMeasurements, dpo: DpoSettings, steps: int) -> str:
    """What makes three times the fewest steps: more passes while they teach, smaller steps, more pairs."""
    wanted, pairs = 3 * _FEW_STEPS, int(run.metrics.get("dpo/pairs", 0))
    rows = dpo.per_device_train_batch_size * dpo.gradient_accumulation_steps
    words = f"{wanted * rows} training pairs, for {wanted} steps in one epoch"
    if dpo.max_steps > 0:
        enough = wanted * rows <= _MOST_PASSES * pairs
        return remedy(run.recipe, *([{"dpo.max_steps": wanted}] if enough else []), words)
    factor = wanted / steps
    return remedy(run.recipe, *longer(run.recipe, "dpo", factor), *smaller_steps(dpo, factor), words)


def still_rising(run: RunMeasurements) -> Iterator[RunFinding]:
    """Training accuracy rose from the middle third of the steps to the last by more than chance explains.

    In a first epoch each step's pairs are new to the model, so this is a held-out curve of many pairs. (Margins rise
    for as long as training lasts, also where nothing more is learnt.)
    """
    _, accuracies = run.curve("rewards/accuracies")
    dpo, rows = run.recipe.dpo, run.metrics.get("dpo/pairs", 0.0)
    if "dpo/kept_step" in run.metrics:
        return  # more steps would be put back as well
    if dpo is None or len(accuracies) < 3 * _FEW_STEPS or run.is_still() or (run.kl or 0) > dpo.kl_limit / 2:
        return
    _, middle, last = (float(part.mean()) for part in np.array_split(accuracies, 3))
    count = max(1.0, rows * run.passes / 3)
    chance = 2 * math.sqrt((middle * (1 - middle) + last * (1 - last)) / count)
    if run.passes > 1 or last >= 0.9 or last - middle <= max(chance, 0.05):
        return
    yield RunFinding(
        "stopped_too_soon",
        "reward accuracy on pairs that were new to the model was still rising when training ended",
        f"{middle:.2f} in the middle third of the steps, {last:.2f} in the last",
        remedy(run.recipe, *longer(run.recipe, "dpo", 2.0), "more training pairs"),
        beyond((last - middle) / max(chance, 0.05)),
    )


def memorised(run: RunMeasurements) -> Iterator[RunFinding]:
    """Training pairs are ordered far better than held-out ones after more than one pass over them."""
    _, trained = run.curve("rewards/accuracies")
    held_out = run.measure("dpo", "reward_accuracy")
    dpo = run.recipe.dpo
    if dpo is None or held_out is None or not len(trained) or run.passes <= 1 or run.pairs is None:
        return
    seen = max(1, int(run.metrics.get("dpo/pairs", len(trained)) * min(1.0, 0.2 * run.passes)))
    share = tail(trained)
    surely = wilson(round(share * seen), seen).low
    gap = surely - held_out["high"]
    if gap <= 0:
        return
    steps, margins = run.curve("eval_reward_margin")
    best = float(steps[int(margins.argmax())] / steps[-1]) if len(steps) and steps[-1] > 0 else 1.0
    best = 0.5 if best == 1 else best
    yield RunFinding(
        "memorised",
        "pairs of the training set are ordered far better than others: the passes after the first learn them by heart",
        f"reward accuracy {share:.2f} on training pairs, {held_out['value']:.2f} [{held_out['low']:.2f}, "
        f"{held_out['high']:.2f}] on held-out ones, after {run.passes:.3g} epochs",
        remedy(run.recipe, *shorter(run.recipe, "dpo", best), *lower_rate(run.recipe), "more training pairs"),
        beyond(1 + 10 * gap),
    )


def near_limit(run: RunMeasurements) -> Iterator[RunFinding]:
    """The KL is near its limit, or was when training was stopped."""
    most, limit, kept = _farthest(run), _limit(run), run.metrics.get("dpo/kept_step")
    if most is None or most <= _NEAR_LIMIT * limit:
        return
    back = f", put back to the weights of step {kept:.0f}" if kept is not None else ""
    slower: Change = {"dpo.learning_rate": significant(fitting_rate(run.rate, most, limit / 5))}
    yield RunFinding(
        "near_kl_limit",
        "the policy has gone far from its reference for what it learnt",
        f"KL {most:.3g} nats per response against a limit of {limit:g}{back}",
        remedy(run.recipe, slower, *lower_rate(run.recipe), "fewer training pairs"),
        beyond(most / (_NEAR_LIMIT * limit)),
    )


def _limit(run: RunMeasurements) -> float:
    """The lower of both KL limits, nats per response."""
    assert run.recipe.dpo is not None
    return min(run.recipe.dpo.kl_limit, run.recipe.evaluation.kl_limit)


def _farthest(run: RunMeasurements) -> float | None:
    """The highest KL that is known of the end of training, nats per response."""
    known = [kl for kl in (run.kl, run.metrics.get("dpo/eval_kl")) if kl is not None and math.isfinite(kl)]
    return max(known, default=None)


def stopped_early(run: RunMeasurements) -> Iterator[RunFinding]:
    """Training was stopped and the weights of an earlier step were kept, though the KL was not near its limit.

    No held-out measurement after that step was better, so what followed was in vain, or could not be distinguished
    from chance on so few pairs.
    """
    kept, stopped = run.metrics.get("dpo/kept_step"), run.metrics.get("dpo/stopped_at_step")
    dpo, most = run.recipe.dpo, _farthest(run)
    if kept is None or stopped is None or dpo is None or (most is not None and most > _NEAR_LIMIT * _limit(run)):
        return
    at_stop = run.metrics.get("dpo/eval_kl")  # a KL that is no number is in no metrics
    what = "the held-out margin rose no more after an early step, whose weights were kept"
    if kept == 0:
        what = "no step was better than the reference on held-out pairs, so the weights are the reference's: unchanged"
    if at_stop is None:
        what = f"training broke down: its KL was no number any more, so the weights of step {kept:.0f} were kept"
    yield RunFinding(
        "stopped_early",
        what,
        f"stopped at step {stopped:.0f}, kept step {kept:.0f}; KL at the stop "
        + ("no number" if at_stop is None else f"{at_stop:.3g} nats per response on held-out responses"),
        remedy(run.recipe, *_after_stop(run, dpo, int(kept), at_stop), "more training pairs"),
        beyond(min((stopped - kept) / max(kept, 1.0), 50.0)),
    )


def _after_stop(run: RunMeasurements, dpo: DpoSettings, kept: int, at_stop: float | None) -> Iterator[Change]:
    """Settings by what the stop shows: a collapse, a policy at rest, too few measured pairs, or enough steps."""
    if at_stop is None:
        yield from lower_rate(run.recipe)
        return
    if at_stop < STILL_KL:
        yield from higher_rate(run.recipe, fitting_rate(run.rate, at_stop))
    elif run.has_learnt() and not run.is_still() and kept >= _FEW_STEPS:
        yield {"dpo.max_steps": kept}
    if dpo.eval_pairs < _MANY_PAIRS:
        yield {"dpo.eval_pairs": _MANY_PAIRS}
    yield from lower_rate(run.recipe)


def displacement(run: RunMeasurements) -> Iterator[RunFinding]:
    """Chosen responses have become less likely: much, or as much as the rejected ones, or in their place."""
    chosen, rejected = (run.measure("dpo", f"{side}_logp_change") for side in ("chosen", "rejected"))
    if chosen is None or rejected is None or chosen["high"] >= 0 or run.recipe.dpo is None:
        return
    fall, other = -chosen["value"], -rejected["value"]
    much = -chosen["high"] / DISPLACED
    alike = fall / max(other, fall / 10) / 0.8 if fall > _LITTLE else 0.0  # also where rejected fell less, or rose
    if max(much, alike) <= 1:
        return
    what = "chosen responses lost probability with the rejected ones, so it went to answers outside the data"
    if other <= 0:
        what = "chosen responses lost probability, and the rejected ones did not"
    yield RunFinding(
        "displacement",
        what,
        f"chosen {chosen['value']:+.3f} [{chosen['low']:+.3f}, {chosen['high']:+.3f}], rejected "
        f"{rejected['value']:+.3f} nats per token",
        remedy(run.recipe, *with_fine_tuning(run.recipe.dpo), *lower_rate(run.recipe), "other pairs"),
        beyond(max(much, alike)),
    )


#: Nats per token that chosen responses lose, with the whole interval, before it counts.
DISPLACED = 0.1
#: The same with a rejected response that lost no more.
_LITTLE = 0.02
