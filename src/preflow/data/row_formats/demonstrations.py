"""Formats of demonstrations: how each is recognised, and how its rows become conversations."""

from typing import Any

from preflow.data.row_formats.cells import is_empty, is_written_null, looks_like_turns, parse_list
from preflow.data.row_formats.conditions import conditioned, with_reasoning
from preflow.data.row_formats.names import ADDITIONS, ANSWERS, CONVERSATIONS, HISTORY, PROMPTS, SHP_ANSWERS
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.texts import parse_transcript
from preflow.data.row_formats.turns import Turn, read_answer, read_prompt, read_turns
from preflow.data.rows import Message
from preflow.redaction import quoted

#: The turns of a demonstration, and how many of them are context alone.
Conversation = tuple[tuple[Turn, ...], int]


def conversation(row: Row) -> Conversation:
    """A column that holds the whole conversation."""
    name = conversation_name(row) or row.first(CONVERSATIONS, null=True) or "messages"
    value = row.get(name)
    if value is None:
        raise RowProblem("missing_value", f"'{row.column(name)}' is null")
    turns = read_turns(value, row.column(name), row.notes)
    return with_reasoning(row, conditioned(row, turns)), 0


def has_conversation(row: Row) -> bool:
    """Whether a column holds a whole conversation."""
    name = conversation_name(row)
    return name is not None and (not is_empty(row.peek(name)) or not has_prompt_and_answer(row))


def conversation_name(row: Row) -> str | None:
    """The column of a whole conversation; an empty one only where no other holds anything.

    ``contents`` is one where it holds turns (Gemini): a text of that name is something else.
    """
    held = [name for name in CONVERSATIONS if row.has(name) and (name != "contents" or _holds_turns(row.peek(name)))]
    return next((name for name in held if not is_empty(row.peek(name))), held[0] if held else None)


def _holds_turns(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and looks_like_turns(value))


def prompt_name(row: Row, *, null: bool = False) -> str | None:
    """The column of what is asked; an instruction counts before a prompt that was rendered from it."""
    if row.has("instruction") and (row.has("output") or row.given("input")):
        return "instruction"
    if isinstance(row.peek(HISTORY), str) and all(map(row.has, SHP_ANSWERS)):
        return HISTORY
    return row.first(PROMPTS, null=null)


def prompt_and_answer(row: Row) -> Conversation:
    """A column of what is asked and one of what is answered, with or without a system text, additions and history."""
    prompt = asked(row)
    answer = row.first(ANSWERS)
    assert answer is not None, "recognised by it"
    given = with_reasoning(row, read_answer(row.get(answer), row.column(answer), row.notes))
    return (*prompt, *given), len(prompt)


def has_prompt_and_answer(row: Row) -> bool:
    """Whether both columns are there."""
    name = prompt_name(row)
    return name is not None and row.first(ANSWERS) not in {None, name}


def is_alpaca(row: Row) -> bool:
    """Whether a row has an instruction and an output."""
    return row.has("output") and (row.has("instruction") or row.has(HISTORY))


def asked(row: Row) -> tuple[Turn, ...]:
    """What is asked: earlier turns, instruction and additions, under the system text.

    Raises:
        RowProblem: There is no such column, or it cannot be read.
    """
    name = prompt_name(row, null=True)
    if name is None:
        raise RowProblem("missing_column", f"no column of the prompt; got {got(row)}; expected {', '.join(PROMPTS)}")
    value = row.get(name)
    if value is None:
        raise RowProblem("missing_value", f"'{row.column(name)}' is null")
    if name == "instruction" and isinstance(value, str):
        value = "\n".join(part for part in (value, *_additions(row)) if part.strip())
    earlier = [] if name == HISTORY else _history(row)
    turns = (*earlier, *read_prompt(value, row.column(name), row.notes))
    return conditioned(row, turns)


def _additions(row: Row) -> list[str]:
    """Texts that an instruction is about; a written null is none."""
    found = []
    for name in ADDITIONS:
        value = row.peek(name)
        if isinstance(value, str):
            row.use(name)
            if is_written_null(value):
                row.notes.changed.add("written_null_ignored")
            elif value.strip():
                found.append(value)
    return found


def _history(row: Row) -> list[Turn]:
    """Earlier questions and answers: pairs of texts, or turns."""
    value = row.get(HISTORY)
    if is_empty(value):
        return []
    if isinstance(value, str):
        value = parse_list(value)
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"'history' is {type(row.peek(HISTORY)).__name__}, expected a list of turns")
    if all(isinstance(item, dict) for item in value):
        return list(read_turns(value, HISTORY, row.notes))
    turns: list[Turn] = []
    for index, item in enumerate(value):
        if not (isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item)):
            raise RowProblem("wrong_type", f"history[{index}] is no pair of a question and its answer")
        question, answer = item
        turns += read_prompt(question, f"history[{index}]", row.notes)
        turns += read_answer(answer, f"history[{index}]", row.notes)
    return turns


def text_alone(row: Row) -> Conversation:
    """A column ``text`` that holds a transcript, where the recipe wants it read as one."""
    value: Any = row.get("text")
    if row.form != "text":
        raise RowProblem(
            "text_alone",
            "the row is one text without turns; format: text of the data set reads transcripts (Human:, Assistant:)",
        )
    found = parse_transcript(value) if isinstance(value, str) else None
    if found is None:
        raise RowProblem(
            "text_alone",
            f"'{row.column('text')}' is no transcript with headings of turns such as Human: and Assistant:",
        )
    row.notes.changed.add("transcript_parsed")
    turns = tuple(Turn(Message("user" if role == "user" else "assistant", said)) for role, said in found)
    return conditioned(row, turns), 0


def has_text_alone(row: Row) -> bool:
    """Whether a text is all that a row says."""
    return row.has("text") and (row.form == "text" or prompt_name(row) is None)


def got(row: Row) -> str:
    """The columns of a row, as messages name them."""
    return ", ".join(quoted(name) for name in row.names()[:12]) or "no column"
