"""Training that single steps throw about, and changes below what the precision can tell."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import RunMeasurements, Vector
from preflow.diagnosis.remedies import higher_rate, lower_rate, remedy, significant

_SPIKE = 8.0
#: Share of the steps with such a gradient that counts by itself. Log-normal norms whose logarithm has a deviation of 1,
#: as healthy trainings have, exceed eight times their median in 1.9 % of the steps.
_OFTEN = 0.1
#: A loss counts that is four times the usual, and four times that of two equally likely responses.
_JUMP, _LOSS_SPIKE = 4.0, 4 * math.log(2)
_WINDOW = 21
_BEFORE, _AFTER = 10, 5


def unstable(run: RunMeasurements) -> Iterator[RunFinding]:
    """Gradients or losses stand far above the others, or the held-out margin changes its sign beyond its error."""
    steps, norms = run.curve("grad_norm")
    dpo = run.recipe.dpo
    if len(norms) < 5 or dpo is None:
        return
    usual = float(np.median(norms))
    spikes = norms > _SPIKE * usual if usual > 0 else np.zeros(len(norms), bool)
    with_loss = _followed_by_loss(run, steps[spikes])
    jumps, limit = _jumps(run)
    turns = _turns(run)
    often = float(spikes.mean())
    if often < _OFTEN and not with_loss and jumps < 2 and turns < 2:
        return
    named = f", first at step {steps[spikes][0]:.0f}" if spikes.any() else ""
    clip = {"dpo.max_grad_norm": significant(usual)}
    clipped = spikes.any() and norms.max() > dpo.max_grad_norm > 2 * usual
    yield RunFinding(
        "unstable",
        "single steps throw training about",
        f"{spikes.sum()} of {len(norms)} steps with a gradient above {_SPIKE:g} times the median {usual:.2g}{named}, "
        f"{with_loss} of them followed by a higher loss; {jumps} with a loss above {limit:.3g}; {turns} changes of "
        "sign of the held-out margin beyond twice its standard error",
        remedy(run.recipe, *([clip] if clipped else []), *lower_rate(run.recipe), "other pairs: longer ones, or more"),
        beyond(max(often / _OFTEN, 1.0 + with_loss, jumps / 2, turns / 2)),
    )


def _followed_by_loss(run: RunMeasurements, spikes: Vector) -> int:
    """Gradient spikes after which the loss is higher: half as much again, and above all of the ten steps before."""
    steps, losses = run.curve("loss")
    count = 0
    for step in spikes:
        before = losses[steps < step][-_BEFORE:]
        after = losses[steps >= step][:_AFTER]
        if len(before) == _BEFORE and len(after) == _AFTER:
            level = float(np.median(after))
            count += level > max(float(before.max()), 1.5 * float(np.median(before)))
    return count


def _jumps(run: RunMeasurements) -> tuple[int, float]:
    """Losses far above the running median, after the first tenth of the steps; and the lowest limit for one."""
    _, losses = run.curve("loss")
    if not len(losses):
        return 0, _LOSS_SPIKE
    half = _WINDOW // 2
    running = np.array([np.median(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))])
    limits = np.maximum(_LOSS_SPIKE, _JUMP * running)
    late = slice(math.ceil(len(losses) / 10), None)
    above = losses[late] > limits[late]
    return int(above.sum()), float((limits[late][above] if above.any() else limits[late]).min(initial=math.inf))


def _turns(run: RunMeasurements) -> int:
    """Changes of sign among held-out margins that lie beyond twice their standard error; none of a model at rest."""
    if run.is_still():
        return 0
    measured = [(each["eval_reward_margin"], each.get("eval_reward_margin_se", 0.0)) for each in run.held_out()]
    signs = [math.copysign(1.0, margin) for margin, error in measured if error > 0 and abs(margin) > 2 * error]
    return sum(first != second for first, second in pairwise(signs))


def broken_precision(run: RunMeasurements) -> Iterator[RunFinding]:
    """What training changed is no larger than what the precision rounds away.

    At the first step the policy is the reference: whatever rewards it has there are rounding.
    """
    first = next((entry for entry in run.log if "rewards/chosen" in entry), None)
    if first is None or first["step"] != 1 or run.recipe.dpo is None or run.pairs is None or not len(run.pairs):
        return
    gap = max(abs(first[f"rewards/{side}"]) for side in ("chosen", "rejected")) / run.recipe.dpo.beta
    change = float(np.abs(run.pairs.margins()).mean())
    put_back = run.metrics.get("dpo/kept_step") == 0
    if gap <= ROUNDED_NATS or change > 2 * gap or put_back:
        return
    yield RunFinding(
        "broken_precision",
        "what training changed is as small as what the precision rounds away, so rewards are mostly rounding",
        f"log-probs differ by {gap:.2g} nats at step 0, where policy and reference are one, and by {change:.2g} at the "
        "end",
        remedy(
            run.recipe,
            {"bf16": False},
            {"use_4bit": False},
            *higher_rate(run.recipe, 3 * run.rate),
            "a model whose log-probs are the same in every batch",
        ),
        beyond(2 * gap / max(change, 1e-6)),
    )


#: Nats of rounding in a response's log-prob that float32 stays far below.
ROUNDED_NATS = 0.05
