"""Held-out rows that the champion was trained on, in whatever form, are left out, counted and said."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from preflow.artifacts import Artifact, build
from preflow.data.rows import Demonstration, Pair, Source
from preflow.data.validated import load_demonstrations, load_pairs, rows_file, write_rows
from preflow.errors import PromotionError
from preflow.promotion.held_out import TrainedOn, without_training_rows
from tests.unit.support import turns


def pairs(*prompts: str, answer: str = "Yes.") -> list[Pair]:
    said = [turns(prompt, answer, "No.") for prompt in prompts]
    return [Pair(each[0], each[1], each[2], Source("p.jsonl", place)) for place, each in enumerate(said)]


def demonstrations(*prompts: str) -> list[Demonstration]:
    said = [turns(prompt, "So it is.") for prompt in prompts]
    return [Demonstration(prompt + answer, Source("d.jsonl", place)) for place, (prompt, answer) in enumerate(said)]


Rows = tuple[Sequence[Pair], Sequence[Demonstration]]


def rows(folder: Path, *, train: Rows = ((), ()), held_out: Rows = ((), ())) -> Artifact:
    def write(out: Path) -> None:
        write_rows(out / rows_file("preferences", "train"), train[0])
        write_rows(out / rows_file("demonstrations", "train"), train[1])
        write_rows(out / rows_file("preferences", "eval"), held_out[0])
        write_rows(out / rows_file("demonstrations", "eval"), held_out[1])

    return build(folder, write)


def test_a_prompt_that_was_trained_on_as_a_pair_or_as_a_demonstration_is_left_out(tmp_path: Path) -> None:
    """Prompt a was a pair with other responses, b a demonstration in other letters, c and d neither."""
    champion = rows(tmp_path / "old", train=(pairs("a?", answer="Perhaps."), demonstrations("  B?", "e?")))
    challenger = rows(tmp_path / "new", held_out=(pairs("a?", "b?", "c?", "d?"), demonstrations("c?", "e?")))
    found = without_training_rows(challenger, TrainedOn.of(champion), tmp_path)
    assert [row.prompt[0].content for row in load_pairs(found.data, "eval")] == ["c?", "d?"]
    assert [row.messages[0].content for row in load_demonstrations(found.data, "eval")] == ["c?"]
    assert (found.pairs, found.demonstrations) == ((4, 2), (2, 1))
    assert str(found) == (
        "left out, since the champion was trained on their first user turns: 2 of 4 held-out pairs and 1 of 2 "
        "held-out demonstrations"
    )


def test_where_nothing_was_trained_on_the_rows_are_those_of_the_run_and_nothing_is_said(tmp_path: Path) -> None:
    champion = rows(tmp_path / "old", train=(pairs("z?"), []), held_out=(pairs("a?"), []))
    challenger = rows(tmp_path / "new", held_out=(pairs("a?"), []))
    found = without_training_rows(challenger, TrainedOn.of(champion), tmp_path)
    assert (found.data, str(found)) == (challenger, "")


def test_rows_of_a_champion_whose_run_is_gone_are_said_to_be_unknown(tmp_path: Path) -> None:
    challenger = rows(tmp_path / "new", held_out=(pairs("a?"), []))
    found = without_training_rows(challenger, TrainedOn(known=False), tmp_path)
    assert found.data == challenger
    assert "is not known any more" in str(found)


def test_where_every_held_out_pair_was_trained_on_nothing_can_be_decided(tmp_path: Path) -> None:
    champion = rows(tmp_path / "old", train=([], demonstrations("a?", "b?")))
    challenger = rows(tmp_path / "new", held_out=(pairs("a?", "b?"), []))
    with pytest.raises(PromotionError, match=r"all 2 held-out pairs: give held-out pairs that are new to it"):
        without_training_rows(challenger, TrainedOn.of(champion), tmp_path)
