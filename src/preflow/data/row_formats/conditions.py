"""Columns beside the text that decide what a row means: system texts, tools, pictures, weights, thoughts."""

from dataclasses import replace
from typing import Any

from preflow.data.row_formats.cells import is_empty, is_written_null
from preflow.data.row_formats.names import (
    FINISH_REASONS,
    FINISHED,
    FINISHED_SIDES,
    MEDIA,
    REASONING,
    ROW_MASKED,
    ROW_TRAINED,
    SYSTEMS,
    TOOLS,
    TRUNCATED,
)
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.texts import clean
from preflow.data.row_formats.turns import Turn, is_trained, read_prompt, refuse_unfinished
from preflow.data.rows import Message
from preflow.data.text import is_blank


def refuse_unfit(row: Row) -> None:
    """Refuse a row that means more than its text, or whose answer was cut.

    Raises:
        RowProblem: It offers or calls tools, has pictures, films or sound, an unfinished answer, or a weight of 0.
    """
    for finding, names in (("needs_tools", TOOLS), ("needs_media", MEDIA)):
        for name in names:
            if row.given(name) and not is_empty(row.peek(name)):
                raise RowProblem(finding, f"column '{row.column(name)}' holds a value; expected a row of text alone")
    refuse_unfinished({name: row.peek(name) for name in (*FINISHED, *TRUNCATED, *FINISH_REASONS)}, "the row")
    row.use(*TOOLS, *MEDIA, *FINISHED, *TRUNCATED, *FINISH_REASONS)
    _refuse_unfinished_sides(row)
    said = {name: row.peek(name) for name in (*ROW_TRAINED, *ROW_MASKED)}
    trained, used = is_trained(said, ROW_TRAINED, ROW_MASKED)
    row.use(*used)
    if not trained:
        raise RowProblem("nothing_to_train", f"column '{sorted(used)[0]}' says that the row is not to be learnt")


def _refuse_unfinished_sides(row: Row) -> None:
    """The same for one answer of a pair."""
    for side, names in FINISHED_SIDES.items():
        for column, name in names.items():
            if row.given(column):
                refuse_unfinished({name: row.peek(column)}, f"the {side} answer")
                row.use(column)


def conditioned(row: Row, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns under the row's column of system text.

    Raises:
        RowProblem: The column is no text, or not the system turn that is there already.
    """
    for name in SYSTEMS:
        value = row.get(name)
        if value is None or (isinstance(value, str) and (is_blank(value) or is_written_null(value))):
            continue
        if isinstance(value, dict) and isinstance(value.get("parts"), list):  # Gemini's
            value = read_prompt(value | {"role": "user"}, row.column(name), row.notes)[0].message.content
        if not isinstance(value, str):
            raise RowProblem("wrong_type", f"'{row.column(name)}' is {type(value).__name__}, expected text")
        if turns[0].message.role != "system":
            turns = (Turn(Message("system", clean(value, row.column(name), row.notes.changed))), *turns)
        elif turns[0].message.content.strip() != value.strip():
            raise RowProblem(
                "prompt_differs", f"the column '{row.column(name)}' is not the system turn of the conversation"
            )
    return turns


def with_reasoning(row: Row, answer: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The answer with the thoughts that a column of its own holds."""
    name = row.first(REASONING)
    if name is None or not isinstance(row.peek(name), str) or not answer or answer[-1].message.role != "assistant":
        return answer
    thoughts: Any = row.get(name)
    last = answer[-1]
    if is_blank(thoughts) or is_written_null(thoughts) or last.message.reasoning:
        return answer
    row.notes.changed.add("reasoning_kept")
    thoughts = clean(thoughts, row.column(name), row.notes.changed)
    return (*answer[:-1], replace(last, message=replace(last.message, reasoning=thoughts)))
