"""Whole trainings end where TRL's end: Preflow's own trainers against TRL's as shipped, on the same order of rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.models.packed.attention import KNOWN
from preflow.training.loop import run_training
from tests.unit.equivalence.two_ways import TwoWays, two_sft_ways, two_ways
from tests.unit.models.architectures import EDGES, Lengths, rows_of, trained

STEPS = 20
#: Edges, and other lengths from 1 to 23: 20 rows, 2 a forward.
MIXED: list[Lengths] = [*EDGES, *[(1 + 7 * i % 23, 1 + 5 * i % 13, 1 + 3 * i % 11, False) for i in range(15)]]
ACCUMULATED: dict[str, Any] = {"gradient_accumulation_steps": 2}
CHECKPOINTED: dict[str, Any] = {"gradient_checkpointing": True, **ACCUMULATED}
#: Softmax does not see what all scores of a query have in common, so the gradient of these, wholly or in part, is
#: rounding; Adam makes steps of full size of it. What the trained models say is compared all the same.
UNSEEN = {"gpt2": "c_attn.bias", "phi": "k_proj.bias"}

Make = Callable[..., TwoWays]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("make", "kind", "lora", "changes"),
    [
        (two_ways, "llama", True, ACCUMULATED),
        *[slow(two_ways, kind, True, {}) for kind in KNOWN],
        *[slow(two_ways, kind, False, {}) for kind in KNOWN],
        *[slow(two_ways, kind, lora, CHECKPOINTED) for kind, lora in (("llama", True), ("gemma2", False))],
        *[slow(two_sft_ways, kind, place % 2 == 0, {}) for place, kind in enumerate(KNOWN)],
        *[slow(two_sft_ways, kind, lora, CHECKPOINTED) for kind, lora in (("llama", False), ("gpt2", True))],
    ],
)
def test_twenty_steps_end_with_the_same_weights(
    tmp_path: Path, make: Make, kind: str, lora: bool, changes: dict[str, Any]
) -> None:
    """Within a thousandth of the way that a weight has gone; the losses on the way are the same."""
    rows = rows_of(MIXED, 5, common=7 if lora else 0)
    ways = make(kind, rows, tmp_path, lora=lora, max_steps=STEPS, **changes)
    start = weights(ways.ours)
    ways.theirs.train()
    run_training(ways.ours, tmp_path / "ours")
    expected, got = (weights(trainer) for trainer in ways.both)
    assert got.keys() == expected.keys() == start.keys()
    for name, value in expected.items():
        moved = float((value - start[name]).norm())
        assert moved > 1e-3, f"{name} did not train"
        if not (UNSEEN.get(kind) and name.endswith(UNSEEN[kind])):
            assert float((got[name] - value).norm()) <= 1e-3 * moved, name
    theirs, ours = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in ways.both)
    assert len(theirs) == STEPS
    assert ours == pytest.approx(theirs, rel=1e-5)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trained(trainer.model).items()}
