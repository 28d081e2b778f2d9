"""Every format of the one list is recognised by its own example, and all examples of a kind say the same."""

import pytest

from preflow.config.validation import ReadingSettings
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.table import DEMONSTRATIONS, FORMATS, PREFERENCES, VERDICT, RowFormat, kinds, recognise
from tests.unit.data.row_formats.reading import pairs, said, shown


@pytest.mark.parametrize("form", DEMONSTRATIONS, ids=lambda form: form.name)
def test_an_example_of_a_demonstration_becomes_the_same_rows(form: RowFormat) -> None:
    row, notes = shown(form.example, text_column="turns")
    assert said(row) == [("user", "Hi"), ("assistant", "Hello")]
    assert (notes.row_format, notes.columns, notes.turn_keys) == (form.name, (), set())


@pytest.mark.parametrize("form", PREFERENCES, ids=lambda form: form.name)
def test_an_example_of_a_pair_becomes_the_same_rows(form: RowFormat) -> None:
    (row,), notes = pairs(form.example)
    assert said(row) == ([("user", "Hi")], "Hello", "What?")
    assert (notes.row_format, notes.columns, notes.turn_keys) == (form.name, (), set())


def test_examples_are_told_apart_by_their_columns_alone() -> None:
    for kind, forms in FORMATS.items():
        for form in forms:
            row = Row(form.example, ReadingSettings())
            assert recognise(row, kind) is form
            assert [found for found, _ in kinds(row)] == [kind], form.name
    assert kinds(Row(VERDICT.example, ReadingSettings())) == [("preferences", VERDICT)]


def test_a_row_with_a_completion_beside_a_pair_is_both() -> None:
    row = Row({"prompt": "Hi", "completion": "Hey", "chosen": "Hello", "rejected": "What?"}, ReadingSettings())
    assert [kind for kind, _ in kinds(row)] == ["preferences", "demonstrations"]
