"""Which prompts may be answered: training prompts, and of files what is not held out."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.config.validation import ReadingSettings
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.splits import split_key
from preflow.data.validated import rows_file, write_rows
from preflow.on_policy.prompts import read_prompt_of, training_prompts
from tests.unit.support import turns

#: Whether a pair with this prompt would be held out at a share of 0.2 is in its hash alone.
HELD_OUT, TRAINS = (
    next(f"Where is {n}?" for n in range(1000) if (split_key(f"Where is {n}?") < 0.2 * 2**64) is held)
    for held in (True, False)
)


def pair(prompt: str, row: int) -> Pair:
    asked, chosen, rejected = turns(prompt, "Here.", "No.")
    return Pair(asked, chosen, rejected, Source("pairs.jsonl", row))


@pytest.fixture
def data(tmp_path: Path) -> Artifact:
    """Two training pairs of one prompt, one of another; a test pair, a validation pair, a held-out demonstration."""

    def write(out: Path) -> None:
        write_rows(out / rows_file("preferences", "train"), [pair("A?", 1), pair("A?", 2), pair("B?", 3)])
        write_rows(out / rows_file("preferences", "eval"), [pair("Tested?", 4)])
        write_rows(out / rows_file("preferences", "validation"), [pair("Chosen by?", 5)])
        write_rows(out / rows_file("demonstrations", "train"), [])
        asked, said = turns("Shown?", "Yes.")
        write_rows(out / rows_file("demonstrations", "eval"), [Demonstration(asked + said, Source("d.jsonl", 1))])

    return build(tmp_path / "data", write)


def recipe(**dpo: Any) -> Recipe:
    return Recipe.model_validate({"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b", **dpo}})


def test_each_training_prompt_once(data: Artifact) -> None:
    found = training_prompts(recipe(), data, ())
    assert [(each.messages[0].content, str(each.source)) for each in found.prompts] == [
        ("A?", "pairs.jsonl:1"), ("B?", "pairs.jsonl:3"),
    ]  # fmt: skip
    assert (found.held_out, found.repeated) == ([], 1)


def test_rows_of_a_file_with_held_out_prompts_are_left_out_by_name(data: Artifact, tmp_path: Path) -> None:
    """Held out for the test, for validation, as a demonstration, in other letters, or by the hash that would do it."""
    asked = ["Tested?", "Chosen by?", "Shown?", "  tested? ", HELD_OUT, TRAINS, TRAINS]
    file = tmp_path / "asked.jsonl"
    rows = [{"prompt": text} for text in asked] + [{"completion": "no prompt"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = training_prompts(recipe(eval_split=0.2), data, resolve_sources([str(file)]))
    assert [each.messages for each in found.prompts] == [(Message("user", TRAINS),)]
    assert found.held_out == [f"asked.jsonl:{n}" for n in range(1, 6)]
    assert (found.repeated, found.unreadable) == (1, {"missing_column": ["asked.jsonl:8"]})


def test_where_the_recipe_names_held_out_data_the_hash_holds_out_nothing(data: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(json.dumps({"prompt": HELD_OUT}) + "\n")
    named = recipe(eval_split=0.2, eval_dataset="c.jsonl")
    assert len(training_prompts(named, data, resolve_sources([str(file)])).prompts) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"question": "Hi?"}, ["Hi?"]),
        ({"instruction": "Add", "input": "1, 2"}, ["Add\n1, 2"]),
        ({"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello"}]}, ["Hi?"]),
        (
            {"messages": [{"role": r, "content": c} for r, c in (("user", "A"), ("assistant", "B"), ("user", "C"))]},
            ["A", "B", "C"],
        ),
    ],
)
def test_a_prompt_in_any_format(values: dict[str, Any], expected: list[str]) -> None:
    read = read_prompt_of(RawRow("f", 1, values), ReadingSettings())
    assert [message.content for message in read] == expected
