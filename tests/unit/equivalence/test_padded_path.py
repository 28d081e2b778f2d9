"""Models that no layout is proven for train padded, by Preflow's trainers, with TRL's numbers; a note names them."""

from pathlib import Path

import pytest

from preflow.observer import Silent
from tests.unit.equivalence import trainer_pairs
from tests.unit.equivalence.comparison import assert_same_step, moved
from tests.unit.equivalence.trainer_pairs import dpo_trainers, sft_trainers
from tests.unit.models.architectures import EDGES, PADDED, move, rows_of, trained

pytestmark = pytest.mark.slow  # each test trains twice


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The notes to an observer while trainers are made."""
    told: list[str] = []

    class Recorder(Silent):
        def note(self, message: str) -> None:
            told.append(message)

    monkeypatch.setattr(trainer_pairs, "Silent", Recorder)
    return told


def wide(architecture: str) -> list[bool]:
    """With an adapter or whole; PEFT itself refuses to adapt Mamba's convolution."""
    return [True, False] if architecture == "gpt_neox" else [False]


CASES = [(architecture, lora) for architecture in PADDED for lora in wide(architecture)]


@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_pairs_are_padded_and_told_of(architecture: str, lora: bool, tmp_path: Path, notes: list[str]) -> None:
    trainers = moved(dpo_trainers(architecture, rows_of(EDGES, 0), tmp_path, lora=lora))
    (note,) = notes
    assert note.startswith("dpo: rows are padded and prompts run twice, once per response: ")
    assert architecture in note
    assert_same_step(trainers, rows_of(EDGES, 0))


@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_demonstrations_are_padded_and_told_of(architecture: str, lora: bool, tmp_path: Path, notes: list[str]) -> None:
    rows = rows_of(EDGES, 0)
    trainers = sft_trainers(architecture, rows, tmp_path, lora=lora)
    (note,) = notes
    assert note.startswith("sft: rows are padded")
    assert architecture in note
    found = []
    for trainer in trainers.both:
        move(trainer.model)
        trainer.model.train()
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))]))
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        gradients = {name: p.grad for name, p in trained(trainer.model).items() if p.grad is not None}
        found.append((float(loss.detach()), gradients))
    (trl, expected), (preflow, got) = found
    assert preflow == pytest.approx(trl, rel=1e-5)
    assert got.keys() == expected.keys() != set()
    for name, gradient in expected.items():
        assert float((got[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()), name
