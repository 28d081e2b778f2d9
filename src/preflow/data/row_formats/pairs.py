"""Formats of preference pairs: how each is recognised, and how its rows become a prompt with two answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preflow.data.row_formats.cells import is_empty
from preflow.data.row_formats.conditions import conditioned
from preflow.data.row_formats.demonstrations import asked, conversation_name, got, prompt_name
from preflow.data.row_formats.names import CONVERSATIONS, PREFERENCES, PROMPTS, REJECTED_ALONE
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.turns import Turn, messages, read_answer, read_prompt, read_turns
from preflow.data.rows import Message

Turns = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prompt with the better and the worse answer, as turns."""

    prompt: Turns
    chosen: Turns
    rejected: Turns


def preference_names(row: Row) -> tuple[str, str] | None:
    """The columns of the better and the worse answer; of a row that has but one of them, that and the other's name."""
    given = [
        names for names in PREFERENCES
        if all(row.given(name) and not isinstance(row.peek(name), bool) for name in names)
    ]  # fmt: skip
    both = next((names for names in given if all(map(row.has, names))), given[0] if given else None)
    alone = [name for name in PREFERENCES[0] if row.given(name) and not isinstance(row.peek(name), bool | int | float)]
    return both or (PREFERENCES[0] if alone else None)


def has_preference(row: Row) -> bool:
    """Whether a row has columns of a better and a worse answer."""
    return preference_names(row) is not None


def preference(row: Row) -> list[Comparison]:
    """Columns of a better and a worse answer, beside a prompt or as whole conversations.

    Several worse answers (a list of texts) give as many pairs.
    """
    names = preference_names(row)
    assert names is not None, "recognised by it"
    better, worse = (_require(row, name, names) for name in names)
    chosen = read_answer(better, row.column(names[0]), row.notes)
    if isinstance(worse, list) and worse and all(isinstance(item, str) for item in worse):
        row.notes.made = len(worse) > 1
        others = [read_answer(item, f"{row.column(names[1])}[{n}]", row.notes) for n, item in enumerate(worse)]
    else:
        others = [read_answer(worse, row.column(names[1]), row.notes)]
    return [compared(row, chosen, other, names) for other in others]


def compared(
    row: Row, chosen: Turns, rejected: Turns, names: Sequence[str], *, from_prompt: bool = False
) -> Comparison:
    """A pair of answers, each of which may begin with the prompt, under the row's prompt and system text.

    Args:
        row: Of which they are.
        chosen: The better answer.
        rejected: The worse answer.
        names: Their columns.
        from_prompt: Both were put together from the column of the prompt, which therefore agrees with them.

    Raises:
        RowProblem: There is no prompt, or it is not the same for both.
    """
    whole = [answer[0].message.role != "assistant" for answer in (chosen, rejected)]
    if all(whole):
        prompt, chosen, rejected = _split_conversations(chosen, rejected)
        if not from_prompt:
            _check_prompt_column(row, prompt)
        prompt = conditioned(row, prompt)
    elif any(whole):
        raise RowProblem(
            "prompt_differs", f"one of {names[0]} and {names[1]} begins with the prompt, the other does not"
        )
    else:
        prompt = _prompt(row, chosen, names)
    return Comparison(prompt, *(_answers(row, turns) for turns in _first_difference(row, chosen, rejected)))


def _answers(row: Row, turns: Turns) -> Turns:
    """A response beside a transcript has the blank of its heading at its start, which belongs to no turn."""
    if "transcript_parsed" not in row.notes.changed:
        return turns
    return tuple(
        Turn(Message(t.message.role, t.message.content.strip(), t.message.reasoning), t.trained) for t in turns
    )


def _first_difference(row: Row, chosen: Turns, rejected: Turns) -> tuple[Turns, Turns]:
    """Both responses, cut after their first answer where the recipe compares the first answers that differ."""
    if len(chosen) == len(rejected) == 1:
        return chosen, rejected
    if row.settings.multi_turn_answers == "all":
        row.notes.changed.add("several_turns_compared")
        return chosen, rejected
    alternate = all(
        turn.message.role == ("assistant", "user")[place % 2] for answer in (chosen, rejected)
        for place, turn in enumerate(answer)
    )  # fmt: skip
    if not alternate or len(chosen) % 2 == 0 or len(rejected) % 2 == 0:
        return chosen, rejected  # the check of the conversation names what is wrong
    row.notes.changed.add("later_turns_left_out")
    return chosen[:1], rejected[:1]


def _prompt(row: Row, chosen: Turns, names: Sequence[str]) -> Turns:
    """The prompt of single answers: earlier turns, or a text."""
    column = conversation_name(row)
    if column is not None and (not is_empty(row.peek(column)) or prompt_name(row) is None):
        turns = read_turns(row.get(column), row.column(column), row.notes)
        if turns[-1].message == chosen[-1].message:  # the conversation with its better answer
            turns = turns[: -len(chosen)]
        if not turns:
            raise RowProblem("bad_order", f"'{row.column(column)}' holds the answer alone; expected its prompt")
        return conditioned(row, turns)
    if prompt_name(row, null=True) is None:
        raise RowProblem(
            "missing_column",
            f"{row.column(names[0])} and {row.column(names[1])} are single answers without a prompt; got {got(row)}; "
            f"expected one of {', '.join((*PROMPTS, *CONVERSATIONS[:2]))} beside them",
        )
    return asked(row)


def _require(row: Row, name: str, names: Sequence[str]) -> Any:
    value = row.get(name)
    if value is not None:
        return value
    if row.given(name):
        raise RowProblem("missing_value", f"'{row.column(name)}' is null")
    beside = names[1] if name == names[0] else names[0]
    raise RowProblem("missing_column", f"no column '{name}'; got {got(row)}; expected it beside '{beside}'")


def has_rejected_alone(row: Row) -> bool:
    """Whether a conversation with its better answer is beside the worse one (ms-swift)."""
    return conversation_name(row) is not None and row.first(REJECTED_ALONE) is not None


def rejected_alone(row: Row) -> list[Comparison]:
    """A conversation that ends with the better answer, and the worse one."""
    column, worse = conversation_name(row), row.first(REJECTED_ALONE)
    assert column is not None, "recognised by it"
    assert worse is not None, "recognised by it"
    turns = read_turns(row.get(column), row.column(column), row.notes)
    value = row.get(worse)
    texts = value if isinstance(value, list) and value and all(isinstance(item, str) for item in value) else [value]
    row.notes.made = len(texts) > 1
    found = []
    for text in texts:
        rejected = read_answer(text, row.column(worse), row.notes)
        if rejected[0].message.role == "assistant":
            prompt, chosen = turns[:-1], turns[-1:]
            found.append(Comparison(conditioned(row, prompt), chosen, rejected) if prompt else _no_prompt(column))
        else:
            found.append(compared(row, turns, rejected, (column, worse)))
    return found


def _no_prompt(column: str) -> Comparison:
    raise RowProblem("bad_order", f"'{column}' is one turn; expected a prompt and the better answer")


def has_preferred_output(row: Row) -> bool:
    """Whether a row is OpenAI's: ``input.messages`` with ``preferred_output`` and ``non_preferred_output``."""
    return isinstance(row.peek("input"), dict) and row.given("preferred_output")


def preferred_output(row: Row) -> list[Comparison]:
    """OpenAI's, Together's and Azure's format."""
    given = row.get("input")
    if "messages" not in given:
        raise RowProblem("missing_column", f"'input' holds {', '.join(map(str, given))}; expected messages")
    for name in ("tools", "parallel_tool_calls"):
        if given.get(name) and name == "tools":
            raise RowProblem("needs_tools", "input.tools offers tools; expected a row without them")
    prompt = read_turns(given["messages"], "input.messages", row.notes)
    names = ("preferred_output", "non_preferred_output")
    chosen, rejected = (read_answer(_require(row, name, names), name, row.notes) for name in names)
    if any(answer[0].message.role != "assistant" for answer in (chosen, rejected)):
        raise RowProblem(
            "bad_order", "preferred_output and non_preferred_output begin with another turn than an answer"
        )
    return [Comparison(conditioned(row, prompt), *_first_difference(row, chosen, rejected))]


def _split_conversations(chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns]:
    """Part two conversations into their common prompt and what differs."""
    one, two = messages(chosen), messages(rejected)
    shorter = min(len(one), len(two))
    common = next((i for i in range(shorter) if one[i] != two[i]), shorter)
    if common == shorter:  # one conversation is the beginning of the other, or both are equal
        common -= 1
    if common == 0 or any(turn.role != "assistant" for turn in (one[common], two[common])):
        raise RowProblem(
            "prompt_differs",
            f"chosen and rejected first differ at turn {common + 1}, which is no assistant turn of both",
        )
    return chosen[:common], chosen[common:], rejected[common:]


def _check_prompt_column(row: Row, prompt: Turns) -> None:
    """A prompt column beside whole conversations must say the same as they do."""
    row.use(*CONVERSATIONS)
    name = row.first(PROMPTS)
    if name is None:
        return
    value = row.get(name)
    said = messages(prompt)
    given = messages(read_prompt(value, row.column(name), row.notes))
    if isinstance(value, str) and len(given) == 1:
        agrees = any(m.content.strip() == given[0].content.strip() for m in said if m.role == "user")
    else:
        agrees = _without_system(given) == _without_system(said)
    if not agrees:
        raise RowProblem("prompt_differs", f"the column '{row.column(name)}' is not the prompt of the conversations")


def _without_system(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    return turns[1:] if turns and turns[0].role == "system" else turns
