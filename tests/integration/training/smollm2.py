"""SmolLM2 with rows of the demo: what tests of real trainings share."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.conversion import to_demonstration, to_pair
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Message
from preflow.data.validated import rows_file, write_rows
from preflow.models.packaged import fetch_packaged
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec
from preflow.stages.reference import run_reference
from tests.integration.conftest import ROOT

NAME = "SmolLM2-135M-Instruct"


class Recorder(Silent):
    """Remembers notes and numbers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.numbers: dict[str, float] = {}

    def note(self, message: str) -> None:
        self.notes.append(message)

    def metrics(self, values: Any, step: int) -> None:
        self.numbers.update(values)


def smollm2() -> Path:
    """Its folder, which the demo uses too: made once for all tests."""
    return fetch_packaged(NAME, ROOT / ".preflow" / "models", Silent())


def demo_rows(folder: Path, answers: int, pairs: int, held_out: int, times: int = 1) -> Artifact:
    """The first rows of the demo's files, as validation leaves them; every turn says its text so many times."""

    def repeated(turns: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(replace(turn, content=" ".join([turn.content] * times)) for turn in turns)

    def first(name: str, count: int, convert: Any) -> list[Any]:
        (source,) = resolve_sources([str(ROOT / "recipes" / "demo" / f"{name}.jsonl")])
        rows = [convert(row) for row in islice(read_rows(source), count)]
        turns = ("messages",) if name == "demonstrations" else ("prompt", "chosen", "rejected")
        return [replace(row, **{part: repeated(getattr(row, part)) for part in turns}) for row in rows]

    def write(out: Path) -> None:
        write_rows(out / rows_file("demonstrations", "train"), first("demonstrations", answers, to_demonstration))
        write_rows(out / rows_file("preferences", "train"), first("preferences", pairs, to_pair))
        write_rows(out / rows_file("preferences", "eval"), first("preferences_heldout", held_out, to_pair))

    return build(folder / "data", write)


def recipe_for(strategy: str, **section: Any) -> Recipe:
    """One stage on SmolLM2."""
    settings = {"dataset": "-", "gradient_accumulation_steps": 1, **section}
    return Recipe.model_validate(
        {"strategy": strategy, "model_name": str(smollm2()), "max_seq_length": 256, strategy: settings}
    )


def dpo_spec(recipe: Recipe, data: Artifact, folder: Path) -> DpoSpec:
    """DPO alone, with its reference computed."""
    base: ModelRef = resolve_model(recipe, Silent())
    asked = ReferenceSpec(recipe=recipe, base=base, data=data)
    reference = build(folder / "reference", lambda out: run_reference(asked, out, Silent()))
    return DpoSpec(recipe=recipe, base=base, data=data, reference=reference)
