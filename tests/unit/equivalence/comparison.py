"""How a step of TRL's trainer and one of Preflow's are compared: loss, metrics, gradients, per-token outputs."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase

from preflow.config.losses import LOSSES
from tests.unit.equivalence.trainer_pairs import TrainerPair, dpo_trainers
from tests.unit.models.architectures import EDGES, Pair, move, rows_of, trained

LOSS_TYPES = tuple(LOSSES)
#: Losses that need or use label smoothing.
SMOOTHED_LOSSES = {"exo_pair", "robust", "aot", "aot_unpaired"}
#: What TRL's losses and metrics read of a forward.
OUTPUTS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
#: Hypothesis settings. No shrinking: a failing example takes as long as any other and is reported as it was drawn.
DRAWN: Any = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}


def moved(trainers: TrainerPair) -> TrainerPair:
    """Both policies moved away from the reference, where losses differ."""
    for trainer in trainers.both:
        move(trainer.model)
        trainer.model.train()
    return trainers


@cache
def moved_trainers(architecture: str, lora: bool, **changes: Any) -> TrainerPair:
    """Both DPO trainers of an architecture, made once, with policies away from the reference."""
    return moved(dpo_trainers(architecture, rows_of(EDGES, 0), Path(mkdtemp()), lora=lora, **changes))


def set_loss(trainers: TrainerPair, loss_type: str) -> None:
    for trainer in trainers.both:
        trainer.loss_types = [loss_type]
        trainer.label_smoothing = 0.1 if loss_type in SMOOTHED_LOSSES else 0.0


def value_and_gradients(trainer: Any, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """One loss by a trainer itself, and the gradient of everything that trains and was reached."""
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), gradients_of(trainer)


def gradients_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in trained(trainer.model).items() if p.grad is not None}


def assert_same_step(trainers: TrainerPair, rows: list[Pair]) -> None:
    """The value within 1e-5 of itself (or of 1), each gradient within 1e-4 of its norm, every metric the same.

    A loss is no log-prob: the limits of ``preflow.maths.agreement`` do not apply.
    """
    batches = trainers.batches(rows)
    trl, preflow = (value_and_gradients(t, batch) for t, batch in zip(trainers.both, batches, strict=True))
    logged = [dict(trainer._metrics["train"]) for trainer in trainers.both]
    assert abs(preflow[0] - trl[0]) <= 1e-5 * max(abs(trl[0]), 1)
    steep = gradients_of_near_batches(trainers, batches, rows) if "discopop" in trainers.trl.loss_types else {}
    assert_same_gradients(trl[1], preflow[1], steep)
    tied = any(row["chosen_ids"] == row["rejected_ids"] for row in rows)  # whose reward is higher is rounding then
    for name, (value,) in logged[0].items():
        if not (name == "rewards/accuracies" and tied):
            assert logged[1][name] == [pytest.approx(value, rel=1e-4, abs=1e-5)], name


def assert_same_gradients(
    trl: dict[str, torch.Tensor], preflow: dict[str, torch.Tensor], steep: dict[str, torch.Tensor] | None = None
) -> None:
    """Each within 1e-4 of its norm; ``steep`` gives gradients of near inputs, whose distance is allowed beside it."""
    assert preflow.keys() == trl.keys() != set()
    for name, expected in trl.items():
        allowed = 1e-4 * float(expected.norm())
        if steep:
            allowed += float((steep[name] - expected).norm())
        assert float((preflow[name] - expected).norm()) <= allowed, name


def gradients_of_near_batches(
    trainers: TrainerPair, batches: tuple[Any, Any], rows: list[Pair]
) -> dict[str, torch.Tensor]:
    """TRL's own gradients where every chosen log-prob is off by what a log-prob may be off.

    DiscoPOP bends within ``discopop_tau`` (0.05) nats: where its slope passes through zero, 1e-4 of a gradient is less
    than what follows from a log-prob that is off by 1e-5 of itself. Moving the reference's value moves the log-ratio
    alike.
    """
    stored = {name: batches[1][name].clone() for name in ("ref_chosen_logps", "ref_rejected_logps")}
    for place, row in enumerate(rows):
        value = stored["ref_chosen_logps"][place]
        value += 1e-5 * max(abs(float(value)), len(row["chosen_ids"]))
    trainers.trl.precompute_ref_logps = True
    try:
        return value_and_gradients(trainers.trl, {**batches[0], **stored})[1]
    finally:
        trainers.trl.precompute_ref_logps = False


def token_outputs(trainer: Any, batch: Any) -> dict[str, torch.Tensor]:
    """Per-token results ``(2B, T - 1)`` as the trainer asks its model for them."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    outputs = trainer.model(**given, labels=labels, use_cache=False, fused_lm_head=True)
    return {name: getattr(outputs, name) for name in OUTPUTS}
