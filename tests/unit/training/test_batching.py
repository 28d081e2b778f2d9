"""Batches by length, and batches that shrink: the rows of an optimizer step stay what the recipe says."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from preflow.config.training import SftSettings
from preflow.dpo.trainer import StoredReferenceTrainer
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import CheckedSFTTrainer, run_sft
from preflow.training.loop import run_training
from preflow.training.out_of_memory import smaller_batch
from preflow.training.sampler import LengthSampler
from preflow.training.token_budget import TokenBudgetBatching, split_to_count, within_budget
from tests.fixtures.prepared_run import Run
from tests.unit.equivalence.trainer_pairs import dpo_trainers, sft_trainers
from tests.unit.models.architectures import move, rows_of
from tests.unit.support import COMMON, recipe_for


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


class Loader:
    """What of a trainer makes its loader, in process 0 of two."""

    def get_train_dataloader(self) -> Any:
        own: Any = self
        loader: Any = DataLoader(range(16), batch_size=2, sampler=own._get_train_sampler())  # type: ignore[arg-type]
        return prepare_data_loader(loader, num_processes=2, process_index=0, put_on_device=False)


class ByLength(TokenBudgetBatching, Loader):
    by_length = True
    lengths = tuple(5 + i % 7 for i in range(16))
    _train_batch_size = 2
    args = SimpleNamespace(gradient_accumulation_steps=1, world_size=2, data_seed=42)


def test_a_process_of_two_resumes_in_its_own_epochs_order() -> None:
    """The Trainer skips what was seen by a loader of accelerate's, behind which the sampler must get the epoch."""
    PartialState(cpu=True)
    whole = ByLength().get_train_dataloader()
    epochs = []
    for epoch in range(2):
        whole.set_epoch(epoch)
        epochs.append([batch.tolist() for batch in whole])
    assert epochs[0] != epochs[1]
    resumed = skip_first_batches(ByLength().get_train_dataloader(), 2)
    resumed.set_epoch(1)
    assert [batch.tolist() for batch in resumed] == epochs[1][2:]


@pytest.mark.parametrize(
    ("batch", "steps", "expected"), [(4, 2, (2, 4)), (6, 1, (3, 2)), (3, 1, (1, 3)), (5, 3, (1, 15)), (1, 8, None)]
)
def test_a_smaller_batch_keeps_the_effective_batch(batch: int, steps: int, expected: tuple[int, int] | None) -> None:
    settings = SftSettings(per_device_train_batch_size=batch, gradient_accumulation_steps=steps)
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    assert smaller_batch(settings) == (None if expected is None else dict(zip(names, expected, strict=True)))


def test_a_smaller_budget() -> None:
    settings = SftSettings(max_tokens_per_batch=100)
    assert smaller_batch(settings) == {"max_tokens_per_batch": 50}
    assert smaller_batch(SftSettings(max_tokens_per_batch=20)) is None


@pytest.mark.parametrize(
    ("text", "notes", "expected"),
    [
        ("CUDA out of memory.", ["This forward had 812 tokens in 3 rows."], 406),
        ("sft: ...\nThis forward had 900 tokens in 2 rows.\nThis forward had 640 tokens in 4 rows.", [], 320),
        ("CUDA out of memory.", [], 8192),
        ("CUDA out of memory.", ["This forward had 20000 tokens in 2 rows."], 8192),
        ("CUDA out of memory.", ["This forward had 900 tokens in 1 rows."], None),  # no budget splits a row
    ],
)
def test_a_smaller_budget_begins_below_the_forward_that_failed(
    text: str, notes: list[str], expected: int | None
) -> None:
    """Of several processes below the smallest that failed, as the end of what they wrote tells."""
    error = RuntimeError(text)
    for note in notes:
        error.add_note(note)
    less = smaller_batch(SftSettings(max_tokens_per_batch=16384), error)
    assert less == (None if expected is None else {"max_tokens_per_batch": expected})


@pytest.mark.slow
def test_every_smaller_budget_changes_the_forward_that_failed(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget far above what a step holds: memory for 200 tokens is found in a try or two."""
    own: Any = StoredReferenceTrainer.compute_loss
    failed: list[int] = []
    passed: list[int] = []

    def compute(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if "row" in inputs:
            tokens = sum(self.lengths[row] for row in inputs["row"].tolist())
            (failed if tokens > 200 else passed).append(tokens)
            if tokens > 200:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return own(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StoredReferenceTrainer, "compute_loss", compute)
    settings = {**COMMON, "eval_steps": 0, "max_steps": 2, "auto_find_batch_size": True, "max_tokens_per_batch": 16384}
    recorder = Recorder()
    run_dpo(prepared.dpo(recipe=recipe_for(prepared.base, dpo=settings)), tmp_path, recorder)
    notes = [note for note in recorder.notes if "out of memory" in note]
    assert f"trying max_tokens_per_batch {failed[0] // 2}," in notes[0]
    assert len(notes) == len(failed) <= 2
    assert all(later <= earlier // 2 for earlier, later in pairwise(failed))
    assert passed


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_budget_changes_no_metric(tmp_path: Path, stage: str) -> None:
    """Steps of a long row and three short ones, in two forwards and more, against TRL as shipped in one."""
    rows = rows_of([(40, 14, 14, False), (2, 1, 3, False), (3, 2, 1, False), (4, 1, 2, False)] * 3, 3)
    make: Any = dpo_trainers if stage == "dpo" else sft_trainers
    trainers = make("llama", rows, tmp_path, lora=True, per_device_train_batch_size=4, max_steps=3, learning_rate=1e-2)
    trainers.preflow.budget = 70 if stage == "dpo" else 55
    forwards: list[list[list[int]]] = []
    within = trainers.preflow._forwards

    def shared(given: list[int]) -> list[list[int]]:
        forwards.append(within(given))
        return forwards[-1]

    trainers.preflow._forwards = shared
    for trainer in trainers.both:
        move(trainer.model)  # where the policy is the reference, rounding alone decides which answer is preferred
    trl, preflow = (run_training(trainer, tmp_path / str(i)) for i, trainer in enumerate(trainers.both))
    assert {len(part) for parts in forwards for part in parts} != {4}, "nothing was split"
    assert [set(entry) for entry in preflow] == [set(entry) for entry in trl]
    assert {"entropy", "mean_token_accuracy"} <= set(preflow[0])
    for mine, shipped in zip(preflow, trl, strict=True):
        assert mine == pytest.approx(shipped, rel=1e-4, abs=1e-4)


def test_a_budget_by_hand() -> None:
    """Of 5, 9, 3, 4 and 30 tokens within 12: 30 alone; 9 and no 5; 5 + 4 + 3. Padded, 5 and 4 take 10."""
    lengths = [5, 9, 3, 4, 30]
    assert within_budget(lengths, 12, padded=False) == [[4], [1], [0, 3, 2]]
    assert within_budget(lengths, 12, padded=True) == [[4], [1], [0, 3], [2]]
    assert within_budget([], 12, padded=True) == []


def test_more_parts_hold_the_same_rows() -> None:
    parts = split_to_count([[4], [0, 3, 2, 1]], 4)
    assert len(parts) == 4
    assert sorted(row for part in parts for row in part) == [0, 1, 2, 3, 4]
    assert all(parts)
    assert split_to_count([[0, 1]], 3) == [[0], [1], []]
    assert split_to_count([], 2) == [[], []]


class Recorder(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_changes_no_step(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the fourth step, after a checkpoint; the same pairs make up every step before and after."""
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
    recorder = Recorder()
    run_dpo(spec, tmp_path / "halved", recorder)
    (note,) = [note for note in recorder.notes if "out of memory" in note]
    assert "trying per_device_train_batch_size 2, gradient_accumulation_steps 2" in note
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_budget_changes_no_step(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """With a budget for about two rows: the same rows per step, the same losses and weights, more forwards."""
    trainer: Any = StoredReferenceTrainer if stage == "dpo" else CheckedSFTTrainer
    own = trainer.compute_loss
    forwards: list[list[int]] = []
    tokens: list[int] = []

    def compute(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if "row" in inputs:
            forwards.append(inputs["row"].tolist())
            tokens.append(sum(self.lengths[row] for row in forwards[-1]))
        return own(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", compute)
    budget = 150 if stage == "dpo" else 90
    logs, weights, steps = [], [], []
    for name, change in (("whole", {}), ("shared", {"max_tokens_per_batch": budget})):
        section = {**COMMON, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
        section |= {"num_train_epochs": 2, "max_grad_norm": 1e9, **change}
        recipe = recipe_for(prepared.base, sft=section, dpo={**section, "eval_steps": 0})
        out = tmp_path / name
        out.mkdir()
        if stage == "dpo":
            run_dpo(prepared.dpo(recipe=recipe), out, Silent())
        else:
            run_sft(SftSpec(recipe=recipe, base=prepared.base, data=prepared.data), out, Silent())
        log = json.loads((out / "training.json").read_text())
        logs.append([entry["loss"] for entry in log if "loss" in entry])
        weights.append(load_file(out / "model" / "adapter_model.safetensors"))
        steps.append([list(rows) for rows in forwards])
        assert name == "whole" or max(tokens) <= budget
        forwards.clear()
        tokens.clear()
    rows = [sorted(row for forward in each for row in forward) for each in steps]
    assert rows[0] == rows[1]
    assert len(steps[1]) != len(steps[0])
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    assert all(torch.allclose(value, weights[1][name], atol=1e-4) for name, value in weights[0].items())
