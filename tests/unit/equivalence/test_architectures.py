"""For each architecture, the per-token outputs and their gradients are those of TRL's padded forward.

TRL's losses and metrics read five outputs per token and nothing else of a model, and only log-probs carry a gradient.
So the outputs, and the product of the Jacobian of log-probs with random vectors, stand for every loss; the losses
themselves are compared on one architecture (test_losses.py), and all of both together nightly (test_whole_cube.py).
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preflow.maths.agreement import sums_agree
from preflow.models.packed.support import PACKED
from tests.unit.equivalence.comparison import (
    DRAWN,
    OUTPUTS,
    assert_same_gradients,
    assert_same_step,
    gradients_of,
    moved_trainers,
    set_loss,
    token_outputs,
)
from tests.unit.models.architectures import CONFIGS, EDGES, Pair, batches, rows_of

#: Run with the fast tests: few passes on the CPU, and soft caps and windows.
FAST = ("llama", "gemma2")
ARCHITECTURES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PACKED]


def test_every_known_architecture_is_tested() -> None:
    assert set(CONFIGS) == set(PACKED)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=2, **DRAWN)
@example(rows=rows_of(EDGES, 0), seed=0)
@example(rows=rows_of(EDGES, 0, 9), seed=1)
@given(rows=batches, seed=st.integers(0, 2**16))
def test_token_outputs_and_their_gradients_equal_padded_ones(
    architecture: str, lora: bool, rows: list[Pair], seed: int
) -> None:
    """Values that are not scored are left out: TRL's forward gives them, nothing reads them."""
    trainers = moved_trainers(architecture, lora, use_weighting=True)  # without it there is no log_sum_sq_probs
    generator, found = torch.Generator().manual_seed(seed), []
    cotangents: torch.Tensor | None = None
    for trainer, batch in zip(trainers.both, trainers.batches(rows), strict=True):
        trainer.model.zero_grad()
        outputs, scored = token_outputs(trainer, batch), batch["completion_mask"][:, 1:].bool()
        cotangents = torch.randn(scored.shape, generator=generator) if cotangents is None else cotangents
        (outputs["log_probs"] * cotangents * scored).sum().backward()
        per_row = (outputs["log_probs"].detach() * scored).sum(-1)
        found.append(({name: outputs[name].detach()[scored] for name in OUTPUTS}, per_row, gradients_of(trainer)))
    (trl, trl_rows, trl_gradients), (preflow, preflow_rows, preflow_gradients) = found
    counts = [len(row["chosen_ids"]) for row in rows] + [len(row["rejected_ids"]) for row in rows]
    for got, expected, count in zip(preflow_rows.tolist(), trl_rows.tolist(), counts, strict=True):
        assert sums_agree(got, expected, count)
    assert len(preflow["log_probs"]) == sum(counts)
    for name in OUTPUTS[:-1]:
        assert torch.allclose(preflow[name], trl[name], rtol=1e-4, atol=3e-5), name
    assert preflow["is_top1"].equal(trl["is_top1"])
    assert_same_gradients(trl_gradients, preflow_gradients)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("architecture", PACKED)
def test_one_step_equals_trls(architecture: str, lora: bool) -> None:
    """Loss, metrics and gradients as the trainers themselves compute them, once for each architecture."""
    trainers = moved_trainers(architecture, lora, use_weighting=True)
    set_loss(trainers, "sigmoid")
    assert_same_step(trainers, rows_of(EDGES, 3, 5))
