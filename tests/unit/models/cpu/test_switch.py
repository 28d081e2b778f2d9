"""``cpu_kernels: off`` trains on the plain modules, whose numbers are the kernels' but for rounding."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.config.training import SftSettings
from preflow.data.rows import Source
from preflow.data.tokens.tokenize import TokenizedDemonstration
from preflow.dpo.trainer import make_trainer
from preflow.models.adapters import inner_model
from preflow.models.cpu import logprob_head, switch
from preflow.models.cpu.operators import holds_for
from preflow.models.heap import freed_memory_kept
from preflow.specs import SftSpec
from preflow.stages import sft
from preflow.training.loop import run_training
from tests.conftest import make_tokenizer
from tests.fixtures.prepared_run import Run
from tests.unit.equivalence.comparison import value_and_gradients
from tests.unit.equivalence.trainer_pairs import spec_of, with_reference
from tests.unit.models.architectures import EDGES, model_of, move, rows_of
from tests.unit.support import Notes

ROWS = rows_of(EDGES, 0, 9)


def trainer_of(stage: str, out: Path, notes: Notes, **changes: Any) -> Any:
    """A stage's own trainer over the tiny llama with an adapter."""
    spec, model, tokenizer = spec_of(stage, True, changes), model_of("llama", lora=True), make_tokenizer()
    if stage == "dpo":
        return make_trainer(
            spec, model, tokenizer, with_reference(model_of("llama", lora=True).eval(), ROWS), out, notes
        )
    whole = [(row["prompt_ids"] + row["chosen_ids"], len(row["prompt_ids"])) for row in ROWS]
    masks = [[place >= prompt for place in range(len(ids))] for ids, prompt in whole]
    rows = [TokenizedDemonstration(ids, mask, Source("-", 1)) for (ids, _), mask in zip(whole, masks, strict=True)]
    return sft._trainer(spec, model, tokenizer, rows, out, notes)


def replaced(trainer: Any) -> list[str]:
    """Names of the modules below the model itself whose forward is not their class's."""
    inner = inner_model(trainer.model)
    return [name for name, module in inner.named_modules() if name and "forward" in vars(module)]


def stepped(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss and gradients away from the start, and how often the CPU's own head scored."""
    calls: list[int] = []
    own = logprob_head.score

    def counted(*given: Any) -> logprob_head.Scores:
        calls.append(1)
        return own(*given)

    monkeypatch.setattr(logprob_head, "score", counted)
    move(trainer.model)
    trainer.model.train()
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(len(ROWS))]))
    batch.pop("row")
    loss, gradients = value_and_gradients(trainer, batch)
    monkeypatch.setattr(logprob_head, "score", own)
    return loss, gradients, len(calls)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_off_uses_plain_modules_and_gives_the_same_numbers(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss within 1e-5 of itself, each gradient within 1e-4 of its norm, as the kernels are compared with TRL."""
    on, off = (trainer_of(stage, tmp_path / value, Notes(), cpu_kernels=value) for value in ("auto", "off"))
    assert len(replaced(on)) > 10
    assert not replaced(off)
    (loss, gradients, scored_on), (plain_loss, plain, scored_off) = (stepped(t, monkeypatch) for t in (on, off))
    assert scored_on
    assert not scored_off
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert gradients.keys() == plain.keys() != set()
    for name, gradient in plain.items():
        assert float((gradients[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()), name


@pytest.mark.parametrize("keep", [True, False])
def test_the_allocator_is_left_alone_where_kernels_are_off(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[torch.device] = []

    def noted(device: torch.device) -> AbstractContextManager[None]:
        held.append(device)
        return freed_memory_kept(device)

    monkeypatch.setattr("preflow.training.loop.freed_memory_kept", noted)
    run_training(trainer_of("sft", tmp_path, Notes(), max_steps=1), tmp_path, keep_heap=keep)
    assert len(held) == keep


def test_another_torch_trains_on_plain_modules_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "holds_for", lambda version: False)
    notes = Notes()
    assert not replaced(trainer_of("dpo", tmp_path, notes))
    (note,) = notes.messages
    assert note.startswith("dpo: training runs on torch's plain modules")
    assert torch.__version__ in note
    assert not replaced(trainer_of("dpo", tmp_path, (quiet := Notes()), cpu_kernels="off"))
    assert not quiet.messages, "what was asked for is not worth a note"


@pytest.mark.parametrize(
    ("version", "known"), [("2.13.0+cpu", True), ("2.13.1", True), ("2.14.0", False), ("2.1.3", False), ("3.13", False)]
)
def test_the_private_operators_hold_for_the_versions_named(version: str, known: bool) -> None:
    assert holds_for(version) == known


def test_the_switch_is_part_of_the_identity(prepared: Run) -> None:
    assert prepared.recipe.sft is not None
    off = prepared.recipe.model_copy(update={"sft": prepared.recipe.sft.model_copy(update={"cpu_kernels": "off"})})
    ways = [SftSpec(recipe=recipe, base=prepared.base, data=prepared.data) for recipe in (prepared.recipe, off)]
    assert ways[0].options() != ways[1].options()
    assert SftSettings().cpu_kernels == "auto"
