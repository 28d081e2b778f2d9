"""Batches by length, and batches that shrink: the rows of an optimizer step stay what the recipe says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preflow.config import SftSettings
from preflow.observer import Silent
from preflow.stages.batching import LengthSampler, smaller
from preflow.stages.dpo import StoredReferenceTrainer, run_dpo
from tests.unit.stages.conftest import Run
from tests.unit.stages.support import COMMON, recipe_for


def test_a_sampler_by_length_is_random_by_epoch_and_repeatable() -> None:
    lengths = [(7 * i) % 50 + 1 for i in range(200)]
    sampler = LengthSampler(lengths, rows=8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(200))
    assert first == list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(second) == list(range(200))
    assert second != first
    assert list(LengthSampler(lengths, rows=8, seed=4)) != first
    spread = [
        max(lengths[i] for i in first[b : b + 8]) - min(lengths[i] for i in first[b : b + 8]) for b in range(0, 200, 8)
    ]
    assert sum(spread) / len(spread) < 10, "batches mix lengths"


@pytest.mark.parametrize(
    ("batch", "steps", "expected"), [(4, 2, (2, 4)), (6, 1, (3, 2)), (3, 1, (1, 3)), (5, 3, (1, 15)), (1, 8, None)]
)
def test_a_smaller_batch_keeps_the_rows_of_a_step(batch: int, steps: int, expected: tuple[int, int] | None) -> None:
    settings = SftSettings(per_device_train_batch_size=batch, gradient_accumulation_steps=steps)
    assert smaller(settings) == expected


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_out_of_memory_halves_the_batch_and_changes_no_step(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the fourth step, after a checkpoint; the same pairs make up every step before and after."""
    settings = {**COMMON, "learning_rate": 1e-3, "eval_steps": 0, "auto_find_batch_size": True}
    spec = prepared.dpo(recipe=recipe_for(prepared.base, dpo=settings))
    run_dpo(spec, tmp_path / "whole", Silent())
    own: Any = StoredReferenceTrainer.training_step
    calls: list[list[int]] = []

    def step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(inputs["row"].tolist())
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return own(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StoredReferenceTrainer, "training_step", step)
    heard = Heard()
    run_dpo(spec, tmp_path / "halved", heard)
    (note,) = [note for note in heard.notes if "out of memory" in note]
    assert "trying 2, and 2 forwards" in note
    assert len(calls) == 4 + 2 * 4, "it should go on at step 3, from the checkpoint of step 2"
    assert calls[4] + calls[5] == calls[2]
    assert calls[6] + calls[7] == calls[3]
    logs = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("whole", "halved")]
    for a, b in zip(*([e["loss"] for e in log if "loss" in e] for log in logs), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    weights = [load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("whole", "halved")]
    assert all(torch.allclose(value, weights[1][name], atol=1e-4) for name, value in weights[0].items())


def test_out_of_memory_is_an_error_where_the_recipe_says_nothing(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(StoredReferenceTrainer, "training_step", step)
    with pytest.raises(torch.OutOfMemoryError):
        run_dpo(prepared.dpo(), tmp_path, Silent())


def test_training_by_length_sees_every_pair_once(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Any = StoredReferenceTrainer.training_step
    rows: list[list[int]] = []

    def step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(inputs["row"].tolist())
        return own(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StoredReferenceTrainer, "training_step", step)
    settings = {**COMMON, "learning_rate": 1e-3, "eval_steps": 0, "batching": "length", "num_train_epochs": 2}
    run_dpo(prepared.dpo(recipe=recipe_for(prepared.base, dpo=settings)), tmp_path, Silent())
    epochs = [[row for batch in rows[i : i + 6] for row in batch] for i in (0, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(24))] * 2
    assert epochs[0] != epochs[1]
