"""Log-probs, all losses, metrics and every gradient are those of TRL's own trainer: padded, with a live reference.

Hypothesis draws the lengths. The models are random ones of every kind that runs without padding.
"""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from trl.trainer.dpo_trainer import DataCollatorForPreference

from preflow.config.training import LossType
from preflow.maths.logprobs import tolerance
from preflow.models.packed.attention import KNOWN
from tests.unit.equivalence.two_ways import TwoWays, two_ways
from tests.unit.models.architectures import CONFIGS, EDGES, Pair, batches, move, rows_of, trained

LOSSES = get_args(LossType)
#: Losses that need or use label smoothing.
SMOOTH = {"exo_pair", "robust", "aot", "aot_unpaired"}
#: What changes the score, the sum of losses, or how the forward runs.
VARIANTS: list[dict[str, Any]] = [
    {"ld_alpha": 0.5},
    {"f_divergence_type": "forward_kl"},
    {"f_divergence_type": "js_divergence"},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    {"use_weighting": True},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    {"gradient_checkpointing": True},
]
#: Kinds whose tests run with the fast ones: fewer passes on the CPU, and soft caps and windows.
QUICK = ("llama", "gemma2")
KINDS = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KNOWN]
#: No shrinking: rows are drawn by lengths and a seed, and a failing example takes as long as any other.
LOOSE: Any = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
}


def moved(ways: TwoWays) -> TwoWays:
    """Both policies moved away from the reference, where losses differ."""
    for trainer in ways.both:
        move(trainer.model)
        trainer.model.train()
    return ways


@cache
def moved_ways(kind: str, lora: bool) -> TwoWays:
    return moved(two_ways(kind, rows_of(EDGES, 0), Path(mkdtemp()), lora=lora))


def with_loss(ways: TwoWays, loss_type: str) -> None:
    for trainer in ways.both:
        trainer.loss_types, trainer.label_smoothing = [loss_type], 0.1 if loss_type in SMOOTH else 0.0


def value_and_gradients(trainer: Any, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """One loss by a trainer itself, and the gradient of everything that trains and was reached."""
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trained(trainer.model).items() if p.grad is not None}
    return float(loss.detach()), gradients


def assert_alike(ways: TwoWays, rows: list[Pair]) -> None:
    """The value within 1e-5 of itself (or of 1), each gradient within 1e-4 of its norm, every metric the same.

    A log-prob of n tokens may differ by ``1e-5 * max(|sum|, n)``. A loss is no log-prob; with nothing in place of its
    tokens but 1 this is the narrowest reading of that rule.
    """
    batches = ways.batches(rows)
    theirs, ours = (value_and_gradients(t, batch) for t, batch in zip(ways.both, batches, strict=True))
    logged = [dict(trainer._metrics["train"]) for trainer in ways.both]
    assert abs(ours[0] - theirs[0]) <= tolerance(theirs[0], 1)
    assert ours[1].keys() == theirs[1].keys() != set()
    steep = slopes_of_near_batches(ways, batches, rows) if "discopop" in ways.theirs.loss_types else {}
    for name, expected in theirs[1].items():
        allowed = 1e-4 * float(expected.norm())
        if steep:
            allowed += float((steep[name] - expected).norm())
        assert float((ours[1][name] - expected).norm()) <= allowed, name
    tied = any(row["chosen_ids"] == row["rejected_ids"] for row in rows)  # whose reward is higher is rounding then
    for name, (value,) in logged[0].items():
        if not (name == "rewards/accuracies" and tied):
            assert logged[1][name] == [pytest.approx(value, rel=1e-4, abs=1e-5)], name


def slopes_of_near_batches(ways: TwoWays, batches: tuple[Any, Any], rows: list[Pair]) -> dict[str, torch.Tensor]:
    """TRL's own gradients where every chosen log-prob is off by what a log-prob may be off.

    DiscoPOP bends within ``discopop_tau`` (0.05) nats: where its slope passes through zero, 1e-4 of a gradient is less
    than what follows from a log-prob's own tolerance. Moving the reference's value moves the log-ratio alike.
    """
    stored = {name: batches[1][name].clone() for name in ("ref_chosen_logps", "ref_rejected_logps")}
    for place, row in enumerate(rows):
        value = stored["ref_chosen_logps"][place]
        value += tolerance(float(value), len(row["chosen_ids"]))
    ways.theirs.precompute_ref_logps = True
    try:
        return value_and_gradients(ways.theirs, {**batches[0], **stored})[1]
    finally:
        ways.theirs.precompute_ref_logps = False


def log_probs(trainer: Any, batch: Any) -> torch.Tensor:
    """Per-token log-probs as the trainer asks its model for them."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    values: torch.Tensor = trainer.model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
    return values


def test_every_known_kind_is_tested() -> None:
    assert set(CONFIGS) == set(KNOWN)
    assert len(LOSSES) == 15


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, **LOOSE)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_log_probs_equal_padded_ones(kind: str, rows: list[Pair]) -> None:
    ways = moved_ways(kind, True)
    with torch.no_grad():
        theirs, ours = (log_probs(t, batch) for t, batch in zip(ways.both, ways.batches(rows), strict=True))
    counts = [len(row["chosen_ids"]) for row in rows] + [len(row["rejected_ids"]) for row in rows]
    for got, expected, count in zip(ours, theirs, counts, strict=True):
        assert abs(float(got.sum() - expected.sum())) <= tolerance(float(expected.sum()), count)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, **LOOSE)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_gradients_equal_padded_ones(kind: str, lora: bool, rows: list[Pair]) -> None:
    ways = moved_ways(kind, lora)
    with_loss(ways, "sigmoid")
    assert_alike(ways, rows)


@pytest.mark.parametrize("loss_type", LOSSES)
@settings(max_examples=4, **LOOSE)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_all_losses_and_their_gradients_equal_trls(loss_type: str, rows: list[Pair]) -> None:
    ways = moved_ways("llama", True)
    with_loss(ways, loss_type)
    assert_alike(ways, rows)


@pytest.mark.parametrize("number", [0, *[pytest.param(i, marks=pytest.mark.slow) for i in range(1, len(VARIANTS))]])
@settings(max_examples=3, **LOOSE)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_variants_equal_trls(number: int, rows: list[Pair]) -> None:
    assert_alike(varied_ways(number), rows)


@cache
def varied_ways(number: int) -> TwoWays:
    return moved(two_ways("llama", rows_of(EDGES, 0), Path(mkdtemp()), lora=True, **VARIANTS[number]))


def test_prompts_cut_on_the_left_equal_trls() -> None:
    """TRL's collator cuts the start of what is longer than 12 tokens; Preflow's pairs come with their prompts cut."""
    whole = rows_of([(30, 3, 3, False)], 1)[0]
    cut: Pair = {**whole, "prompt_ids": whole["prompt_ids"][-9:]}
    ways = moved_ways("llama", True)
    theirs = DataCollatorForPreference(pad_token_id=0, max_length=12, truncation_mode="keep_end")([whole])
    assert theirs["input_ids"].shape == (2, 12)
    with torch.no_grad():
        expected, got = log_probs(ways.theirs, theirs), log_probs(ways.ours, ways.batches([cut])[1])
    assert torch.allclose(got.sum(-1), expected.sum(-1), rtol=1e-5, atol=3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", KNOWN)
def test_every_loss_of_every_kind_equals_trls(kind: str, lora: bool) -> None:
    ways = moved_ways(kind, lora)
    for loss_type in LOSSES:
        with_loss(ways, loss_type)
        assert_alike(ways, rows_of(EDGES, 3))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", KNOWN)
@settings(max_examples=15, **LOOSE)
@given(rows=batches, loss_type=st.sampled_from(LOSSES))
def test_any_loss_of_any_kind_equals_trls(kind: str, lora: bool, rows: list[Pair], loss_type: str) -> None:
    ways = moved_ways(kind, lora)
    with_loss(ways, loss_type)
    assert_alike(ways, rows)
