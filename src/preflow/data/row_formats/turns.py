"""Turns of conversations, however their keys and roles are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from preflow.data.row_formats.cells import is_empty, is_null, looks_like_turns, number, parse_list, truth
from preflow.data.row_formats.names import (
    CONTENT_KEYS,
    FINISH_REASONS,
    FINISHED,
    MASKED_KEYS,
    MEDIA,
    REASONING,
    ROLE_KEYS,
    ROLES,
    TOOL_ROLES,
    TOOLS,
    TRAINED_KEYS,
    TRUNCATED,
    normal,
)
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import RowNotes
from preflow.data.row_formats.texts import clean, parse_transcript, refuse_transcript
from preflow.data.rows import Message, Role
from preflow.redaction import quoted

_CUT = frozenset({"length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "model_length"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_TOOL_PARTS = ("tool", "function")
_THOUGHT_PARTS = frozenset({"thinking", "reasoning"})
#: Keys by which Gemini's parts say what they hold.
_GEMINI_PARTS = frozenset({"functionCall", "functionResponse", "function_call", "function_response", "inlineData",
                           "inline_data", "fileData", "file_data"})  # fmt: skip
#: Keys of a turn whose value says what kind of content it holds.
_KINDS = ("type",)


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn, and whether it is to be learnt where it is the assistant's."""

    message: Message
    trained: bool = True


def messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """What turns say."""
    return tuple(turn.message for turn in turns)


def read_prompt(value: Any, where: str, notes: RowNotes) -> tuple[Turn, ...]:
    """Turns of a prompt: text (one turn of the user, or a transcript), one turn, or a list of turns."""
    value = parsed(value, where, notes)
    if isinstance(value, str):
        found = parse_transcript(value)
        if found is not None:
            notes.changed.add("transcript_parsed")
            return _of_transcript(found, where, notes)
        refuse_transcript(value, where, answer=False)
        return (Turn(Message("user", _text(value, where, notes))),)
    _require_text(value, where)
    return read_turns(value, where, notes)


def read_answer(value: Any, where: str, notes: RowNotes) -> tuple[Turn, ...]:
    """Turns of an answer: text (one turn of the assistant, or a transcript), one turn, or a list of turns."""
    value = parsed(value, where, notes)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        found = parse_transcript(value)
        if found is not None and found[-1][0] == "assistant":
            notes.changed.add("transcript_parsed")
            return _of_transcript(found, where, notes)
        refuse_transcript(value, where, answer=True)
        return (Turn(Message("assistant", _text(value, where, notes))),)
    _require_text(value, where)
    return read_turns(value, where, notes)


def read_turns(value: Any, where: str, notes: RowNotes) -> tuple[Turn, ...]:
    """A list of turns, or a single one.

    Raises:
        RowProblem: It is no such thing, a role is unknown, or a turn holds what a model of text cannot be given.
    """
    value = parsed(value, where, notes)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"'{where}' is {_type(value)}, expected a list of turns")
    if not value:
        raise RowProblem("blank_text", f"'{where}' is an empty list of turns")
    found: list[Turn] = []
    for index, item in enumerate(value):
        if not is_null(item):
            found += _turn(item, f"{where}[{index}]", notes)
    if not found:
        raise RowProblem("blank_text", f"'{where}' is a list of nulls")
    return tuple(found)


def parsed(value: Any, where: str, notes: RowNotes) -> Any:
    """A cell's list of turns where the cell holds it as text; any other value as it is.

    Raises:
        RowProblem: The text is such a list and cannot be parsed.
    """
    if not isinstance(value, str) or not looks_like_turns(value):
        return value
    found = parse_list(value)
    if found is None and value.lstrip().startswith(("[", "array(")):
        raise RowProblem(
            "turns_as_text", f"'{where}' holds turns as text, but neither as JSON nor as Python writes them"
        )
    if found and _is_turns(found):
        notes.changed.add("cell_parsed")
        return found
    return value


def _is_turns(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, dict) and _is_turn(item) for item in items)


def _is_turn(item: dict[Any, Any]) -> bool:
    keys = {normal(str(key)): held for key, held in item.items()}
    role = next((keys[key] for key in ROLE_KEYS if not is_null(keys.get(key))), None)
    known = isinstance(role, str) and role.strip().lower() in {*ROLES, *TOOL_ROLES}
    return known and any(key in keys for key in CONTENT_KEYS)


def _require_text(value: Any, where: str) -> None:
    if not isinstance(value, str | list | dict):
        raise RowProblem("wrong_type", f"'{where}' is {_type(value)}, expected text, a turn or a list of turns")


def _of_transcript(found: list[tuple[str, str]], where: str, notes: RowNotes) -> tuple[Turn, ...]:
    return tuple(Turn(Message(cast(Role, role), _text(said, where, notes))) for role, said in found)


def _turn(value: Any, where: str, notes: RowNotes) -> list[Turn]:
    if not isinstance(value, dict):
        raise RowProblem("wrong_type", f"{where} is {_type(value)}, expected a turn")
    keys = {normal(str(key)): held for key, held in value.items() if not is_null(held)}
    _refuse_unfit(keys, where)
    if not keys.keys() & {*ROLE_KEYS} and (both := _question_and_answer(keys, where, notes)):
        return both
    role_key = next((key for key in ROLE_KEYS if key in keys), "role")
    content_key = next((key for key in CONTENT_KEYS if key in keys), "content" if role_key != "from" else "value")
    role = _role(keys.get(role_key), role_key, where)
    content, thoughts = _content(keys.get(content_key), content_key, where)
    reasoning = _thoughts(keys) or thoughts
    used = {role_key, content_key, *_KINDS, *(REASONING if reasoning else ())}
    trained, flags = is_trained(keys, TRAINED_KEYS, MASKED_KEYS)
    if role == "assistant":
        used |= flags
    else:
        reasoning = ""
        used |= {key for key in flags if not truth(keys[key])}  # that a turn of the user is not learnt is so anyway
    notes.turn_keys |= {key for key, held in keys.items() if key not in used and not is_empty(held)}
    reasoning = _kept(reasoning, where, notes)
    if role == "user" and parse_transcript(content) is not None:
        raise RowProblem("control_tokens", f"{where} holds headings of turns (Human:, Assistant:); expected one turn")
    return [Turn(Message(role, _text(content, where, notes), reasoning), trained or role != "assistant")]


def _thoughts(keys: dict[str, Any]) -> str:
    """The thoughts before an answer that a key of its turn holds."""
    return next((keys[key] for key in REASONING if isinstance(keys.get(key), str) and keys[key].strip()), "")


def _kept(reasoning: str, where: str, notes: RowNotes) -> str:
    if not reasoning:
        return ""
    notes.changed.add("reasoning_kept")
    return clean(_encodable(reasoning, where), f"{where}: the reasoning", notes.changed)


def _question_and_answer(keys: dict[str, Any], where: str, notes: RowNotes) -> list[Turn]:
    """A turn that holds a question and its answer (``input`` and ``output``, ``human`` and ``assistant``)."""
    for asked, answered in (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer")):
        if isinstance(keys.get(asked), str) and isinstance(keys.get(answered), str):
            reasoning = _thoughts(keys)
            trained, flags = is_trained(keys, TRAINED_KEYS, MASKED_KEYS)
            used = {asked, answered, "system", *flags, *(REASONING if reasoning else ())}
            notes.turn_keys |= {key for key, held in keys.items() if key not in used and not is_empty(held)}
            system = keys.get("system")
            before = (
                [Turn(Message("system", _text(system, where, notes)))] if isinstance(system, str) and system else []
            )
            question = Turn(Message("user", _text(keys[asked], where, notes)))
            answer = Message("assistant", _text(keys[answered], where, notes), _kept(reasoning, where, notes))
            return [*before, question, Turn(answer, trained)]
    return []


def _refuse_unfit(keys: dict[str, Any], where: str) -> None:
    for key in keys.keys() & {*TOOLS}:
        if not is_empty(keys[key]):
            raise RowProblem("needs_tools", f"{where} has '{key}'; expected text alone")
    for key in keys.keys() & {*MEDIA}:
        if not is_empty(keys[key]):
            raise RowProblem("needs_media", f"{where} has '{key}'; expected text alone")
    refuse_unfinished(keys, where)


def refuse_unfinished(keys: dict[str, Any], where: str) -> None:
    """Refuse an answer that was cut while it was sampled.

    Raises:
        RowProblem: A key says that it did not come to its end.
    """
    cut = next((key for key in FINISHED if truth(keys.get(key)) is False), None)
    cut = cut or next((key for key in TRUNCATED if truth(keys.get(key)) is True), None)
    cut = cut or next((key for key in FINISH_REASONS if str(keys.get(key, ""))[:20].lower() in _CUT), None)
    if cut is not None:
        raise RowProblem("unfinished_answer", f"{where} has {cut}: {quoted(str(keys[cut]))}; the answer was cut")


def is_trained(keys: dict[str, Any], trained: Sequence[str], masked: Sequence[str]) -> tuple[bool, set[str]]:
    """Whether a turn or row is to be learnt, and the keys that say it; a weight between 0 and 1 says neither.

    Raises:
        RowProblem: A weight is negative.
    """
    for key in trained:
        if "weight" in key and (number(keys.get(key)) or 0) < 0:
            raise RowProblem("wrong_type", f"{key} is {quoted(str(keys[key]))}, expected a weight of 0 or more")
    said = {key: truth(keys.get(key)) for key in trained} | {
        key: None if (value := truth(keys.get(key))) is None else not value for key in masked
    }
    used = {key for key, value in said.items() if value is not None}
    return all(said[key] for key in used), used


def _role(value: Any, key: str, where: str) -> Role:
    if isinstance(value, dict):  # {"author": {"role": "user"}}
        value = value.get("role")
    name = value.strip().lower() if isinstance(value, str) else ""
    if name in TOOL_ROLES:
        raise RowProblem("needs_tools", f"{where} is a turn of '{name}'; expected system, user or assistant")
    if name not in ROLES:
        raise RowProblem("bad_role", f"{where} has {key} {quoted(repr(value))}, expected system, user, assistant")
    return cast(Role, ROLES[name])


def _content(value: Any, key: str, where: str) -> tuple[str, str]:
    """What a turn says, and the thoughts among its parts."""
    if isinstance(value, dict):
        parts = value.get("parts")
        value = [value] if not isinstance(parts, list) else [_part(part) for part in parts]
    if isinstance(value, list):
        return _joined(value, where)
    if not isinstance(value, str):
        raise RowProblem("wrong_type", f"{where}: {key} is {_type(value)}, expected text")
    return value, ""


def _joined(parts: list[Any], where: str) -> tuple[str, str]:
    """Parts of a content as one text, one below the other."""
    texts, thoughts = [], []
    for index, part in enumerate(parts):
        if not isinstance(part, dict):
            raise RowProblem(
                "wrong_type", f"{where}: part {index + 1} is {_type(part)}, expected an object with a text"
            )
        kind = str(part.get("type") or next((key for key in part if key in _GEMINI_PARTS), "text"))
        if any(word in kind.lower() for word in _TOOL_PARTS):
            raise RowProblem("needs_tools", f"{where}: part {index + 1} is of type {quoted(kind)}; expected text")
        if kind in _THOUGHT_PARTS:
            thoughts.append(str(part.get(kind) or part.get("text") or ""))
            continue
        if kind not in _TEXT_PARTS:
            raise RowProblem("needs_media", f"{where}: part {index + 1} is of type {quoted(kind)}; expected text")
        text = part.get("text", part.get("content"))
        if not isinstance(text, str):
            raise RowProblem("wrong_type", f"{where}: part {index + 1} has no text")
        texts.append(text)
    return "\n".join(texts), "\n".join(thoughts)


def _part(part: Any) -> Any:
    return {"text": part} if isinstance(part, str) else part


def _text(text: str, where: str, notes: RowNotes) -> str:
    return clean(_encodable(text, where), where, notes.changed)


def _encodable(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            detail = f"{where} holds a lone surrogate at character {error.start + 1}"
            raise RowProblem("bad_encoding", detail) from error
    return text


def _type(value: Any) -> str:
    return "null" if is_null(value) else type(value).__name__
