"""What SFT's trainer is really given: a loss on responses alone, the end-of-turn token included."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.models import peak_memory
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages import sft
from preflow.training import callbacks
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for


class Enough(Exception):  # noqa: N818 - ends a stage once its trainer is built
    pass


def test_labels_are_the_responses_and_nothing_else(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def catch(trainer: Any, *rest: Any, **options: Any) -> None:
        seen.append(trainer)
        raise Enough

    monkeypatch.setattr(sft, "run_training", catch)
    spec = SftSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data)
    with pytest.raises(Enough):
        sft.run_sft(spec, tmp_path, Silent())
    (trainer,) = seen
    tokenizer = trainer.processing_class
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    for number, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
        trained = labels[labels != -100].tolist()
        assert tokenizer.decode(trained) == f"Order {number} is on its way{'!' * (number % 5)}<|im_end|>"
        start = int((labels != -100).nonzero()[0])
        assert tokenizer.decode(ids[:start]).endswith("<|im_start|>assistant\n")
        assert (labels[start : start + len(trained)] != -100).all()


class Told(Silent):
    """Keeps notes and the names of metrics."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.names: set[str] = set()

    def note(self, message: str) -> None:
        self.notes.append(message)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.names |= set(values)


@pytest.mark.parametrize("measurable", [True, False])
def test_a_training_goes_on_where_memory_cannot_be_measured(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measurable: bool
) -> None:
    """One note stands for the figure, and no number is made up; root may write to any file, so here there is none."""
    if not measurable:
        monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    settings: Any = prepared.recipe.sft
    recipe = prepared.recipe.model_copy(update={"sft": settings.model_copy(update={"max_steps": 1})})
    told = Told()
    sft.run_sft(SftSpec(recipe=recipe, base=prepared.base, data=prepared.data), tmp_path, told)
    assert {"sft/memory_predicted_gib", "sft/memory_predicted_tensors_gib"} <= told.names
    assert ("sft/memory_measured_gib" in told.names) == measurable
    assert len([note for note in told.notes if "was not measured" in note]) == (not measurable)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is kept")
@pytest.mark.parametrize(("size", "times"), [(2**28, 1), (0, 0)])
def test_a_heap_that_outgrows_its_estimate_is_released(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, times: int
) -> None:
    """Something keeps 256 MiB more than a tiny model's training was estimated to take, or keeps nothing.

    Three steps; once is enough, since what stays is in use.
    """
    settings: Any = prepared.recipe.sft
    recipe = prepared.recipe.model_copy(update={"sft": settings.model_copy(update={"max_steps": 3})})
    handed: list[int] = []
    monkeypatch.setattr(callbacks, "hand_back", lambda: handed.append(1))
    kept: list[torch.Tensor] = []

    class Keeping(Silent):
        def progress(self, done: int, total: int, what: str) -> None:
            if size and not kept:
                kept.append(torch.ones(size // 4))

    sft.run_sft(SftSpec(recipe=recipe, base=prepared.base, data=prepared.data), tmp_path, Keeping())
    assert len(handed) == times


class Interrupting(Silent):
    """Ends a training after its third step."""

    def progress(self, done: int, total: int, what: str) -> None:
        if done == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_training_logs_what_an_uninterrupted_one_does(prepared: Run, tmp_path: Path) -> None:
    """Every fourth step, with checkpoints between: the mean over steps 1 to 4 cannot be taken again from step 2 on."""
    section = {**COMMON, "learning_rate": 1e-2, "logging_steps": 4, "save_steps": 2}
    spec = SftSpec(recipe=recipe_for(prepared.base, sft=section), base=prepared.base, data=prepared.data)
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    sft.run_sft(spec, tmp_path / "whole", Silent())
    with pytest.raises(KeyboardInterrupt):
        sft.run_sft(spec, tmp_path / "killed", Interrupting())
    sft.run_sft(spec, tmp_path / "killed", Silent())
    for name in ("training.json", "metrics.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
