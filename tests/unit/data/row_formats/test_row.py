"""Columns under the names that a recipe gives them."""

from typing import Any

import pytest

from preflow.config.validation import ReadingSettings, RowReading
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.verdicts import join_verdicts
from tests.unit.data.row_formats.reading import pairs, said, shown

WHOLE = ([("user", "Hi")], "Hello", "What?")
U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def columns(**names: str | None) -> RowReading:
    return RowReading(columns=names)


def test_columns_of_any_name_stand_for_ours_and_are_said_as_the_file_names_them() -> None:
    values = {"asked": "Hi", "best": "Hello", "worst": "What?", "topic": "t"}
    (row,), notes = pairs(values, columns(prompt="asked", chosen="best", rejected="worst"))
    assert said(row) == WHOLE
    assert notes.used == (("asked", "prompt"), ("best", "chosen"), ("worst", "rejected"))
    assert notes.columns == ("topic",)


def test_a_key_inside_a_column_can_be_named() -> None:
    values = {"data": {"q": "Hi", "a": [{"text": "Hello"}]}, "data.x": "kept"}
    row, notes = shown(values, columns(prompt="data.q", completion="data.a.0.text"))
    assert said(row) == [("user", "Hi"), ("assistant", "Hello")]
    assert notes.columns == ("data.x",)
    assert said(shown({"a.b": "Hi", "completion": "Hello"}, columns(prompt="a.b"))[0])[0] == ("user", "Hi")


def test_the_files_own_column_of_a_name_that_is_given_is_not_read() -> None:
    """The file's ``prompt`` is another text; its ``messages`` would be read first."""
    values = {"prompt": "### Hi", "question": "Hi", "response": "Hello", "messages": [U, {**A, "content": "no"}]}
    row, notes = shown(values, columns(prompt="question"))
    assert said(row) == [("user", "Hi"), ("assistant", "Hello")]
    assert notes.columns == ("prompt", "messages")


def test_null_takes_a_column_of_another_meaning_out() -> None:
    values = {"prompt": "Hi", "completion": "Hello", "label": 0}
    with pytest.raises(RowProblem, match="undesirable_answer"):
        shown(values)
    row, notes = shown(values, columns(label=None))
    assert (said(row)[1], notes.columns) == (("assistant", "Hello"), ("label",))


def test_an_instruction_of_another_name_keeps_its_input() -> None:
    values = {"task": "Hi", "input": "there", "output": "Hello"}
    assert said(shown(values, columns(instruction="task"))[0])[0] == ("user", "Hi\nthere")


def test_a_message_names_the_files_column() -> None:
    with pytest.raises(RowProblem, match="best is the text nan"):
        pairs({"q": "Hi", "best": "nan", "worst": "no"}, columns(prompt="q", chosen="best", rejected="worst"))


def test_rows_with_verdicts_of_other_names_are_joined() -> None:
    given = columns(prompt="q", completion="a", label="ok")
    rows = [
        RawRow("f", number, {"q": "Hi", "a": text, "ok": good, "topic": "t"}, reading=given)
        for number, (text, good) in enumerate([("Hello", True), ("What?", False)], 1)
    ]
    (joined,) = join_verdicts(rows, ReadingSettings())
    (row,), notes = pairs(joined.values)
    assert (said(row), notes.columns) == (WHOLE, ("topic",))


def test_a_joined_row_has_no_column_that_the_recipe_takes_out() -> None:
    given = columns(prompt="q", completion="a", label="ok", system=None, source="origin")
    rest = {"messages": [U, A], "system": "linux", "origin": "web"}
    rows = [
        RawRow("f", number, {"q": "Hi", "a": text, "ok": good, **rest}, reading=given)
        for number, (text, good) in enumerate([("Hello", True), ("What?", False)], 1)
    ]
    (joined,) = join_verdicts(rows, ReadingSettings())
    (row,), notes = pairs(joined.values)
    assert (said(row), notes.columns, joined.values["source"]) == (WHOLE, (), "web")


def test_an_answer_that_is_not_to_be_learnt_joins_no_pair() -> None:
    rows = [
        RawRow("f", 1, {"messages": [U, {**A, "weight": 0}], "label": True}),
        RawRow("f", 2, {"messages": [U, {**A, "content": "What?"}], "label": False}),
    ]
    assert [*join_verdicts(rows, ReadingSettings())] == rows


def test_a_row_without_a_recipes_word_is_read_as_it_is() -> None:
    values: dict[str, Any] = {"Prompt": "Hi"}
    assert Row.of(RawRow("f", 1, values), ReadingSettings()).values() is values
