"""Every format of the one list is recognised by its own example, and all examples of a kind say the same."""

import pytest

from preflow.config.validation import ReadingSettings, RowReading
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.examples import (
    DEMONSTRATION_EXAMPLES,
    PREFERENCE_EXAMPLES,
    VERDICT_EXAMPLES,
    Example,
)
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.table import (
    DEMONSTRATIONS,
    FORMATS,
    PREFERENCES,
    VERDICT,
    RowFormat,
    described,
    kinds,
    recognise,
)
from preflow.data.row_formats.verdicts import join_verdicts
from preflow.formats import DEMONSTRATION_FORMATS, OTHER_NAMES, PREFERENCE_FORMATS, ROW_FORMATS, VERDICT_FORMATS
from tests.unit.data.row_formats.reading import pairs, said, shown


@pytest.mark.parametrize("form", DEMONSTRATIONS, ids=lambda form: form.name)
def test_an_example_of_a_demonstration_becomes_the_same_rows(form: RowFormat) -> None:
    row, notes = shown(form.example, RowReading(format="text") if form.name == "text" else None)
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


@pytest.mark.parametrize("each", DEMONSTRATION_EXAMPLES, ids=lambda each: each.called)
def test_every_published_way_of_writing_a_demonstration_gives_the_same_row(each: Example) -> None:
    row, notes = shown(each.row, RowReading(format=each.given) if each.given else None)
    assert [(role, text.strip()) for role, text in said(row)] == [("user", "Hi"), ("assistant", "Hello")]
    assert (notes.row_format, notes.columns, notes.turn_keys) == (each.form, (), set())
    assert [kind for kind, _ in kinds(Row(each.row, ReadingSettings()))] == ["demonstrations"]


@pytest.mark.parametrize("each", PREFERENCE_EXAMPLES, ids=lambda each: each.called)
def test_every_published_way_of_writing_a_pair_gives_the_same_row(each: Example) -> None:
    (row,), notes = pairs(each.row)
    assert said(row) == ([("user", "Hi")], "Hello", "What?")
    assert (notes.row_format, notes.columns, notes.turn_keys) == (each.form, (), set())
    assert [kind for kind, _ in kinds(Row(each.row, ReadingSettings()))] == ["preferences"]


def test_two_rows_with_verdicts_give_the_same_pair() -> None:
    rows = [RawRow("f", number, each.row) for number, each in enumerate(VERDICT_EXAMPLES, 1)]
    (joined,) = join_verdicts(rows, ReadingSettings())
    (row,), _ = pairs(joined.values)
    assert said(row) == ([("user", "Hi")], "Hello", "What?")


def test_every_format_of_the_list_has_an_example() -> None:
    examples = (*DEMONSTRATION_EXAMPLES, *PREFERENCE_EXAMPLES, *VERDICT_EXAMPLES)
    assert {each.form for each in examples} == {*ROW_FORMATS}
    assert len({each.called for each in examples}) == len(examples)


def test_a_recipe_can_name_every_format_of_the_list_and_no_other() -> None:
    assert tuple(form.name for form in DEMONSTRATIONS) == DEMONSTRATION_FORMATS
    assert tuple(form.name for form in PREFERENCES) == PREFERENCE_FORMATS
    assert (VERDICT.name,) == VERDICT_FORMATS
    assert {*OTHER_NAMES.values()} <= {*ROW_FORMATS}


def test_a_format_that_the_recipe_gives_is_the_only_one_that_is_tried() -> None:
    """By its columns the row is a conversation first."""
    values = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hey"}]}
    both = {**values, "prompt": "Hi", "completion": "Hello"}
    assert said(shown(both)[0])[1] == ("assistant", "Hey")
    assert said(shown(both, RowReading(format="prompt and answer"))[0])[1] == ("assistant", "Hello")
    with pytest.raises(RowProblem, match="missing_column"):
        shown(values, RowReading(format="prompt and answer"))


@pytest.mark.parametrize(
    ("name", "used", "line"),
    [
        ("alpaca", ["instruction", "input", "output"], "instruction + input -> prompt, output -> completion"),
        ("conversation", ["system_prompt", "messages"], "system_prompt -> system turn, messages -> turns"),
        ("prompt and answer", ["question", "answer"], "question -> prompt, answer -> completion"),
        (
            "chosen and rejected",
            ["chosen", "rejected", "messages"],
            "messages -> prompt, chosen -> chosen, rejected -> rejected",
        ),
        (
            "chosen and rejected",
            ["chosen", "rejected"],
            "what both begin with -> prompt, chosen -> chosen, rejected -> rejected",
        ),
        (
            "rejected response",
            ["messages", "rejected_response"],
            "rejected_response -> rejected, messages -> prompt and chosen",
        ),
        (
            "two answers and a winner",
            ["prompt", "response_a", "response_b", "winner"],
            "prompt -> prompt, response_a + response_b by winner -> chosen and rejected",
        ),
        ("ranking", ["prompt", "responses", "scores"], "prompt -> prompt, responses by scores -> chosen and rejected"),
    ],
)
def test_what_became_what_is_said_in_one_line(name: str, used: list[str], line: str) -> None:
    assert described(name, [(column, column) for column in used]) == line


def test_columns_are_said_as_the_file_names_them() -> None:
    line = described("chosen and rejected", [("Question", "prompt"), ("best", "chosen"), ("worst", "rejected")])
    assert line == "Question -> prompt, best -> chosen, worst -> rejected"


def test_a_row_with_a_completion_beside_a_pair_is_both() -> None:
    row = Row({"prompt": "Hi", "completion": "Hey", "chosen": "Hello", "rejected": "What?"}, ReadingSettings())
    assert [kind for kind, _ in kinds(row)] == ["preferences", "demonstrations"]
