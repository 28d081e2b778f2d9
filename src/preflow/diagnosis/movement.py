"""How far training went: hardly at all, not far enough, too far, unevenly, or below what the precision can tell."""

import math
from collections.abc import Iterator

import numpy as np

from preflow.diagnosis.finding import RunFinding, beyond, rounded
from preflow.diagnosis.measurements import STILL_KL, STILL_NATS, RunMeasurements, tail
from preflow.maths.intervals import wilson

#: KL in nats per response at which adapters of 135M models had learnt most of what they did.
GOOD_KL = 1.0
_MOST_FASTER = 30.0
_FEW_STEPS = 20
_HIGH_BETA = 0.5
#: Peak rates beyond which Adam's steps, not the rate, are what a larger one would change.
_HIGHEST_RATE = {"lora": 1e-3, "full": 1e-5}
_SMALL_RANK = 4
_NEAR_LIMIT = 0.7
_SPIKE = 8.0
_LOSS_SPIKE = 4 * math.log(2)


def fitting_rate(rate: float, kl: float, target: float = GOOD_KL) -> float:
    """The rate at which a run of the same length would reach a KL: KL grows with the square of the rate.

    Around the reference the KL is quadratic in the change of the weights, which Adam makes in proportion to the rate.
    On 551 human pairs (SmolLM2-135M, LoRA 16): 0.05 nats at 2e-5, 1.15 at 1e-4, 3.99 at 2e-4; the square says 1.25
    and 5 from the first of them.
    """
    return rate * min(_MOST_FASTER, math.sqrt(target / max(kl, 1e-9)))


def hardly_trained(run: RunMeasurements) -> Iterator[RunFinding]:
    """The policy is the reference still; named by the reason that the settings and the curves show."""
    if not run.is_still() or run.recipe.dpo is None or run.kl is None or run.moved is None:
        return
    accuracy = run.measure("dpo", "reward_accuracy")
    if accuracy is not None and accuracy["low"] > 0.9:  # little was to be changed
        return
    dpo, steps = run.recipe.dpo, int(run.metrics.get("dpo/steps", 0))
    faster = fitting_rate(run.rate, run.kl)
    evidence = f"KL {run.kl:.3g} nats per response, margin {run.moved:.3g} nats after {steps} steps at {run.rate:g}"
    strength = beyond(min(STILL_KL / max(run.kl, 1e-6), STILL_NATS / max(abs(run.moved), 1e-6), 50.0))
    what = "the model has hardly left its reference, so nothing that was measured can tell whether the data teach it"
    if run.metrics.get("dpo/kept_step") == 0:
        return  # it moved, and was put back: ``near_limit`` reports it
    if 0 < steps < _FEW_STEPS:
        epochs = math.ceil(dpo.num_train_epochs * 3 * _FEW_STEPS / steps)
        change = "dpo.max_steps: -1" if dpo.max_steps > 0 else f"dpo.num_train_epochs: {epochs}"
        yield RunFinding("too_few_steps", what, evidence, change, strength)
    elif dpo.beta > _HIGH_BETA:
        yield RunFinding("beta_too_high", what, f"beta {dpo.beta:g}; {evidence}", "dpo.beta: 0.1", strength)
    elif run.recipe.tuning == "lora" and dpo.lora_r < _SMALL_RANK and run.rate >= _HIGHEST_RATE["lora"]:
        yield RunFinding("adapter_too_small", what, f"rank {dpo.lora_r}; {evidence}", "lora_r: 16", strength)
    else:
        rate = min(faster, max(_HIGHEST_RATE[run.recipe.tuning], run.rate))
        yield RunFinding("hardly_trained", what, evidence, f"dpo.learning_rate: {rounded(rate)}", strength)


def still_rising(run: RunMeasurements) -> Iterator[RunFinding]:
    """Training accuracy rose from the middle third of the steps to the last by more than chance explains.

    In a first epoch each step's pairs are new to the model, so this is a held-out curve of many pairs. (Margins rise
    for as long as training lasts, also where nothing more is learnt.)
    """
    _, accuracies = run.curve("rewards/accuracies")
    dpo, rows = run.recipe.dpo, run.metrics.get("dpo/pairs", 0.0)
    if dpo is None or len(accuracies) < 3 * _FEW_STEPS or run.is_still() or (run.kl or 0) > dpo.kl_limit / 2:
        return
    _, middle, last = (float(part.mean()) for part in np.array_split(accuracies, 3))
    count = max(1.0, rows * dpo.num_train_epochs / 3)
    chance = 2 * math.sqrt((middle * (1 - middle) + last * (1 - last)) / count)
    if dpo.num_train_epochs > 1 or last >= 0.9 or last - middle <= max(chance, 0.05):
        return
    yield RunFinding(
        "stopped_too_soon",
        "reward accuracy on pairs that were new to the model was still rising when training ended",
        f"{middle:.2f} in the middle third of the steps, {last:.2f} in the last",
        f"dpo.num_train_epochs: {math.ceil(2 * dpo.num_train_epochs)}",
        beyond((last - middle) / max(chance, 0.05)),
    )


def memorised(run: RunMeasurements) -> Iterator[RunFinding]:
    """Training pairs are ordered far better than held-out ones after more than one pass over them."""
    _, trained = run.curve("rewards/accuracies")
    held_out = run.measure("dpo", "reward_accuracy")
    dpo = run.recipe.dpo
    if dpo is None or held_out is None or not len(trained) or dpo.num_train_epochs <= 1 or run.pairs is None:
        return
    seen = max(1, int(run.metrics.get("dpo/pairs", len(trained)) * min(1.0, 0.2 * dpo.num_train_epochs)))
    share = tail(trained)
    surely = wilson(round(share * seen), seen).low
    gap = surely - held_out["high"]
    if gap <= 0:
        return
    steps, margins = run.curve("eval_reward_margin")
    best = float(steps[int(margins.argmax())] / steps[-1]) if len(steps) and steps[-1] > 0 else 0.5
    epochs = max(1, math.ceil(best * dpo.num_train_epochs)) if best < 1 else max(1, int(dpo.num_train_epochs / 2))
    yield RunFinding(
        "memorised",
        "pairs of the training set are ordered far better than others: the passes after the first learn them by heart",
        f"reward accuracy {share:.2f} on training pairs, {held_out['value']:.2f} [{held_out['low']:.2f}, "
        f"{held_out['high']:.2f}] on held-out ones, after {dpo.num_train_epochs:g} epochs",
        f"dpo.num_train_epochs: {epochs}",
        beyond(1 + 10 * gap),
    )


def near_limit(run: RunMeasurements) -> Iterator[RunFinding]:
    """The KL is near its limit, beyond it, or training was put back to where it began."""
    dpo, kl = run.recipe.dpo, run.kl
    if dpo is None:
        return
    limit = min(dpo.kl_limit, run.recipe.evaluation.kl_limit)
    measured = [value for value in (kl, run.metrics.get("dpo/eval_kl")) if value is not None]
    if not measured or max(measured) <= _NEAR_LIMIT * limit:
        return
    most, kept = max(measured), run.metrics.get("dpo/kept_step")
    back = f", put back to the weights of step {kept:.0f}" if kept is not None else ""
    yield RunFinding(
        "near_kl_limit",
        "the policy has gone far from its reference for what it learnt",
        f"KL {most:.3g} nats per response against a limit of {limit:g}{back}",
        f"dpo.learning_rate: {rounded(fitting_rate(run.rate, most, limit / 5))}",
        beyond(most / (_NEAR_LIMIT * limit)),
    )


def displacement(run: RunMeasurements) -> Iterator[RunFinding]:
    """Chosen responses have become less likely too, much, or as much as the rejected ones."""
    chosen, rejected = (run.measure("dpo", f"{side}_logp_change") for side in ("chosen", "rejected"))
    if chosen is None or rejected is None or chosen["high"] >= 0:
        return
    fall, other = -chosen["value"], -rejected["value"]
    much = -chosen["high"] / DISPLACED
    alike = fall / other / 0.8 if other > 0 and fall > 0.02 else 0.0
    if max(much, alike) <= 1:
        return
    yield RunFinding(
        "displacement",
        "chosen responses lost probability with the rejected ones, so it went to answers outside the data",
        f"chosen {chosen['value']:+.3f} [{chosen['low']:+.3f}, {chosen['high']:+.3f}], rejected "
        f"{rejected['value']:+.3f} nats per token",
        "dpo.loss_type: [sigmoid, sft] with dpo.loss_weights: [1.0, 0.2]",
        beyond(max(much, alike)),
    )


#: Nats per token that chosen responses lose, with the whole interval, before it counts.
DISPLACED = 0.1


def unstable(run: RunMeasurements) -> Iterator[RunFinding]:
    """Gradients or losses of single steps stand far above the others, or the held-out margin changes its sign."""
    steps, norms = run.curve("grad_norm")
    _, losses = run.curve("loss")
    if len(norms) < 5:
        return
    usual = float(np.median(norms))
    spikes = steps[norms > _SPIKE * usual] if usual > 0 else steps[:0]
    jumps = losses[losses > max(_LOSS_SPIKE, 4 * float(np.median(losses)))]
    _, margins = run.curve("eval_reward_margin")
    large = margins[np.abs(margins) > 0.25 * np.abs(margins).max()] if len(margins) else margins
    turns = int((np.diff(np.sign(large)) != 0).sum()) if len(large) else 0
    if len(spikes) < 2 and len(jumps) < 2 and turns < 2:
        return
    named = f", first at step {spikes[0]:.0f}" if len(spikes) else ""
    dpo = run.recipe.dpo
    assert dpo is not None
    high = f"dpo.max_grad_norm: {rounded(usual)}" if usual < dpo.max_grad_norm / 2 else None
    yield RunFinding(
        "unstable",
        "single steps throw training about",
        f"{len(spikes)} steps with a gradient above {_SPIKE:g} times the median {usual:.2g}{named}; {len(jumps)} with "
        f"a loss above {_LOSS_SPIKE:.1f}; {turns} changes of sign of the held-out margin",
        high or f"dpo.learning_rate: {rounded(run.rate / 3)}",
        beyond(max(len(spikes), len(jumps), turns) / 2),
    )


def broken_precision(run: RunMeasurements) -> Iterator[RunFinding]:
    """What training changed is no larger than what the precision rounds away.

    At the first step the policy is the reference: whatever rewards it has there are rounding.
    """
    first = next((entry for entry in run.log if "rewards/chosen" in entry), None)
    if first is None or first["step"] != 1 or run.recipe.dpo is None or run.pairs is None or not len(run.pairs):
        return
    gap = max(abs(first[f"rewards/{side}"]) for side in ("chosen", "rejected")) / run.recipe.dpo.beta
    change = float(np.abs(run.pairs.margins()).mean())
    if gap <= ROUNDED_NATS or change > 2 * gap:
        return
    yield RunFinding(
        "broken_precision",
        "what training changed is as small as what the precision rounds away, so rewards are mostly rounding",
        f"log-probs differ by {gap:.2g} nats at step 0, where policy and reference are one, and by {change:.2g} at the "
        "end",
        "bf16: false",
        beyond(2 * gap / max(change, 1e-6)),
    )


#: Nats of rounding in a response's log-prob that float32 stays far below.
ROUNDED_NATS = 0.05
