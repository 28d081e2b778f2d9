"""From the columns that users write to the internal form. What is wrong with a row has a name here."""

from collections.abc import Sequence
from typing import Any

from preflow.data.files.raw_rows import RawRow
from preflow.data.rows import Demonstration, Message, Pair, Role, Source
from preflow.data.text import is_blank, printable, quoted

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", **_ROLES}
_TOOLS = ("tools", "functions")
_DEMONSTRATION_COLUMNS = "messages, conversations, or prompt and completion"
_PAIR_COLUMNS = "chosen and rejected, with or without prompt"


class RowProblem(Exception):  # noqa: N818 - data validation records it as a finding and never lets it out
    """A row that cannot be used.

    Attributes:
        finding: One of ``preflow.findings.FORM``.
        detail: What was got, where in the row, what was expected.
    """

    def __init__(self, finding: str, detail: str) -> None:
        super().__init__(f"{finding}: {detail}")
        self.finding = finding
        self.detail = printable(detail)


def to_demonstration(raw: RawRow) -> Demonstration:
    """Convert ``messages``, ShareGPT's ``conversations``, or ``prompt``/``completion`` (text or turns).

    Raises:
        RowProblem: The row cannot be used.
    """
    _refuse_malformed(raw)
    for column in ("messages", "conversations"):
        if raw.values.get(column) is not None:
            messages = _conditioned(raw, _turns(raw.values[column], column))
            _check_conversation(messages, column)
            return Demonstration(messages, Source(raw.file, raw.row))
    prompt = _conditioned(raw, _prompt(_require(raw, "prompt", _DEMONSTRATION_COLUMNS)))
    completion = _answer(_require(raw, "completion", _DEMONSTRATION_COLUMNS), "completion")
    _check_conversation(prompt + completion, "prompt and completion")
    return Demonstration(prompt + completion, Source(raw.file, raw.row), context=len(prompt))


def to_pair(raw: RawRow) -> Pair:
    """Convert ``chosen``/``rejected``: answers to ``prompt``, or whole conversations with or without it.

    Whole conversations share their prompt: the longest shared prefix that ends before the first assistant turn
    in which they differ.

    Raises:
        RowProblem: The row cannot be used.
    """
    _refuse_malformed(raw)
    source = Source(raw.file, raw.row)
    chosen = _answer(_require(raw, "chosen", _PAIR_COLUMNS), "chosen")
    rejected = _answer(_require(raw, "rejected", _PAIR_COLUMNS), "rejected")
    whole = [side[0].role != "assistant" for side in (chosen, rejected)]
    if all(whole):
        prompt, chosen, rejected = _split_conversations(chosen, rejected)
        _check_prompt_column(raw.values.get("prompt"), prompt)
    elif any(whole):
        raise RowProblem("prompt_differs", "one side begins with the prompt, the other does not")
    else:
        prompt = _prompt(_require(raw, "prompt", _PAIR_COLUMNS))
    prompt = _conditioned(raw, prompt)
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        _check_conversation(prompt + side, name)
        if len(side) > 1:
            raise RowProblem(
                "bad_order",
                f"{name} has {len(side)} turns after the common prompt, expected one assistant turn",
            )
    return Pair(prompt, chosen, rejected, source)


def _refuse_malformed(raw: RawRow) -> None:
    if raw.malformed is not None:
        raise RowProblem("malformed_line", raw.malformed)


def is_conditioned(raw: RawRow) -> bool:
    """Whether columns beside the text decide what the model is to answer to: a system text, or tools."""
    values = raw.values
    return bool(values.get("system") or values.get("tools") or values.get("functions"))


def _conditioned(raw: RawRow, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt, or conversation, under the row's ``system`` column."""
    for column in _TOOLS:
        if raw.values.get(column) not in (None, "", "[]", "{}", [], {}):
            raise RowProblem("needs_tools", f"column '{column}' offers tools; expected a row without them")
    system = raw.values.get("system")
    if system is None or (isinstance(system, str) and is_blank(system)):
        return prompt
    if not isinstance(system, str):
        raise RowProblem("wrong_type", f"'system' is {type(system).__name__}, expected text")
    if prompt[0].role != "system":
        return (Message("system", _text(system, "system")), *prompt)
    if prompt[0].content.strip() != system.strip():
        raise RowProblem("prompt_differs", "the system column is not the system turn of the conversation")
    return prompt


def _require(raw: RawRow, column: str, expected: str) -> Any:
    if column not in raw.values:
        got = ", ".join(map(quoted, list(raw.values)[:12])) or "no column"
        raise RowProblem("missing_column", f"no column '{column}'; got {got}; expected {expected}")
    value = raw.values[column]
    if value is None:
        raise RowProblem("missing_value", f"'{column}' is null")
    return value


def _prompt(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", _text(value, "prompt")),)
    return _turns(value, "prompt")


def _answer(value: Any, column: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", _text(value, column)),)
    return _turns(value, column)


def _turns(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        got = type(value).__name__
        raise RowProblem("wrong_type", f"'{where}' is {got}, expected text or a list of turns")
    if not value:
        raise RowProblem("blank_text", f"'{where}' is an empty list of turns")
    return tuple(_turn(item, f"{where}[{index}]") for index, item in enumerate(value))


def _turn(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowProblem("wrong_type", f"{where} is {type(value).__name__}, expected a turn")
    if "role" not in value and "from" in value:
        keys, roles = ("from", "value"), _SHAREGPT_ROLES
    else:
        keys, roles = ("role", "content"), _ROLES
    role, content = (value.get(key) for key in keys)
    if value.get("tool_calls"):
        raise RowProblem("needs_tools", f"{where} calls tools; expected text alone")
    if not isinstance(role, str) or role not in roles:
        raise RowProblem("bad_role", f"{where} has {keys[0]} {quoted(repr(role))}, expected {', '.join(roles)}")
    if not isinstance(content, str):
        got = "null" if content is None else type(content).__name__
        raise RowProblem("wrong_type", f"{where}: {keys[1]} is {got}, expected text")
    return Message(roles[role], _text(content, where))


def _text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            detail = f"{where} holds a lone surrogate at character {error.start + 1}"
            raise RowProblem("bad_encoding", detail) from error
    return text


def _check_conversation(messages: Sequence[Message], where: str) -> None:
    body = messages[1:] if messages[0].role == "system" else messages
    for index, message in enumerate(body):
        if message.role != ("user", "assistant")[index % 2]:
            position = index + len(messages) - len(body) + 1
            raise RowProblem(
                "bad_order",
                f"turn {position} of {where} is the {message.role}'s; expected user and assistant in turn, "
                "after an optional system turn",
            )
        if is_blank(message.content):
            raise RowProblem("blank_text", f"{where}: the {message.role}'s turn is blank")
    if len(body) % 2 or not body:
        raise RowProblem("ends_on_user", f"{where} does not end with an answer of the assistant")


def _split_conversations(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Part two conversations into their common prompt and what differs."""
    shorter = min(len(chosen), len(rejected))
    common = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    if common == shorter:  # one conversation is the beginning of the other, or both are equal
        common -= 1
    turns = chosen[common], rejected[common]
    if common == 0 or any(turn.role != "assistant" for turn in turns):
        raise RowProblem(
            "prompt_differs",
            f"chosen and rejected first differ at turn {common + 1}, which is no assistant turn of both",
        )
    return chosen[:common], chosen[common:], rejected[common:]


def _check_prompt_column(column: Any, prompt: tuple[Message, ...]) -> None:
    """A prompt column beside whole conversations must say the same as they do."""
    if column is None:
        return
    if isinstance(column, str):
        agrees = any(m.content.strip() == column.strip() for m in prompt if m.role == "user")
    else:
        agrees = _turns(column, "prompt") == prompt
    if not agrees:
        raise RowProblem("prompt_differs", "the prompt column is not the prompt of the conversations")
