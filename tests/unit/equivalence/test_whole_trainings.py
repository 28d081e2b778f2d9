"""Whole trainings end where TRL's end: Preflow's own trainers against TRL's as shipped, on the same order of rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.models.packed.support import PACKED
from preflow.training.loop import run_training
from tests.unit.equivalence.test_architectures import FAST
from tests.unit.equivalence.trainer_pairs import TrainerPair, dpo_trainers, sft_trainers
from tests.unit.models.architectures import EDGES, Lengths, rows_of, trained

STEPS = 20
#: Edges, and other lengths from 1 to 23: 20 rows, 2 a forward.
MIXED: list[Lengths] = [*EDGES, *[(1 + 7 * i % 23, 1 + 5 * i % 13, 1 + 3 * i % 11, False) for i in range(15)]]
ACCUMULATED: dict[str, Any] = {"gradient_accumulation_steps": 2}
CHECKPOINTED: dict[str, Any] = {"gradient_checkpointing": True, **ACCUMULATED}
#: Softmax does not see what all scores of a query have in common, so the gradient of these, wholly or in part, is
#: rounding; Adam makes steps of full size of it. What the trained models say is compared all the same.
UNSEEN = {"gpt2": "c_attn.bias", "phi": "k_proj.bias"}

Make = Callable[..., TrainerPair]


def nightly(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.nightly)


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


#: Five of ``make test``, of which one runs with the fast tests; every architecture and setting nightly.
CASES = [
    (dpo_trainers, "llama", True, ACCUMULATED),
    slow(dpo_trainers, "llama", False, {}),
    slow(dpo_trainers, "gemma2", True, {}),
    slow(dpo_trainers, "gemma2", False, CHECKPOINTED),
    slow(sft_trainers, "llama", True, {}),
    nightly(dpo_trainers, "llama", True, {}),
    nightly(dpo_trainers, "llama", True, CHECKPOINTED),
    nightly(dpo_trainers, "gemma2", False, {}),
    nightly(sft_trainers, "llama", False, CHECKPOINTED),
    nightly(sft_trainers, "gpt2", True, CHECKPOINTED),
    *[nightly(dpo_trainers, name, lora, {}) for name in PACKED if name not in FAST for lora in (True, False)],
    *[nightly(sft_trainers, name, place % 2 == 0, {}) for place, name in enumerate(PACKED) if name != "llama"],
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "architecture", "lora", "changes"), CASES)
def test_twenty_steps_end_with_the_same_weights(
    tmp_path: Path, make: Make, architecture: str, lora: bool, changes: dict[str, Any]
) -> None:
    """Within a thousandth of the way that a weight has gone; the losses on the way are the same."""
    rows = rows_of(MIXED, 5, common=7 if lora else 0)
    trainers = make(architecture, rows, tmp_path, lora=lora, max_steps=STEPS, **changes)
    start = weights(trainers.preflow)
    trainers.trl.train()
    run_training(trainers.preflow, tmp_path / "preflow")
    expected, got = (weights(trainer) for trainer in trainers.both)
    assert got.keys() == expected.keys() == start.keys()
    for name, value in expected.items():
        moved = float((value - start[name]).norm())
        assert moved > 1e-3, f"{name} did not train"
        if not (UNSEEN.get(architecture) and name.endswith(UNSEEN[architecture])):
            assert float((got[name] - value).norm()) <= 1e-3 * moved, name
    trl, preflow = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in trainers.both)
    assert len(trl) == STEPS
    assert preflow == pytest.approx(trl, rel=1e-5)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trained(trainer.model).items()}
