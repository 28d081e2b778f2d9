"""Models that no layout is proven for train padded, by Preflow's own trainers, with TRL's numbers, and are told of."""

from pathlib import Path

import pytest

from preflow.observer import Silent
from tests.unit.equivalence import two_ways as ways_module
from tests.unit.equivalence.test_equivalence import assert_alike, moved
from tests.unit.equivalence.two_ways import two_sft_ways, two_ways
from tests.unit.models.architectures import EDGES, PADDED, move, rows_of, trained


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an observer is told while trainers are made."""
    told: list[str] = []

    class Heard(Silent):
        def note(self, message: str) -> None:
            told.append(message)

    monkeypatch.setattr(ways_module, "Silent", Heard)
    return told


def wide(kind: str) -> list[bool]:
    """With an adapter or whole; PEFT itself refuses to adapt Mamba's convolution."""
    return [True, False] if kind == "gpt_neox" else [False]


CASES = [(kind, lora) for kind in PADDED for lora in wide(kind)]


@pytest.mark.parametrize(("kind", "lora"), CASES)
def test_pairs_are_padded_and_told_of(kind: str, lora: bool, tmp_path: Path, notes: list[str]) -> None:
    ways = moved(two_ways(kind, rows_of(EDGES, 0), tmp_path, lora=lora))
    (note,) = notes
    assert note.startswith("dpo: rows are padded and prompts run twice, once per response: ")
    assert kind in note
    assert_alike(ways, rows_of(EDGES, 0))


@pytest.mark.parametrize(("kind", "lora"), CASES)
def test_demonstrations_are_padded_and_told_of(kind: str, lora: bool, tmp_path: Path, notes: list[str]) -> None:
    rows = rows_of(EDGES, 0)
    ways = two_sft_ways(kind, rows, tmp_path, lora=lora)
    (note,) = notes
    assert note.startswith("sft: rows are padded")
    assert kind in note
    found = []
    for trainer in ways.both:
        move(trainer.model)
        trainer.model.train()
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))]))
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        gradients = {name: p.grad for name, p in trained(trainer.model).items() if p.grad is not None}
        found.append((float(loss.detach()), gradients))
    (theirs, expected), (ours, got) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert got.keys() == expected.keys() != set()
    for name, gradient in expected.items():
        assert float((got[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()), name
