"""Rows with a verdict on a single answer (KTO): what the verdict says, and pairs where a prompt has both verdicts."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from preflow.config.validation import ReadingSettings
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.cells import is_empty, number, truth
from preflow.data.row_formats.conditions import refuse_unfit
from preflow.data.row_formats.demonstrations import (
    conversation,
    has_conversation,
    has_prompt_and_answer,
    prompt_and_answer,
)
from preflow.data.row_formats.names import VERDICTS, normal
from preflow.data.row_formats.pairs import has_preference
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import SOURCE, Row
from preflow.data.row_formats.turns import messages
from preflow.data.rows import Message, to_json
from preflow.formats import VERDICT_FORMATS
from preflow.redaction import quoted

#: Marks a pair that was joined from two rows; holds what was changed in them.
JOINED = "joined_from_verdicts"


#: Columns that hold nothing but a verdict, whatever their values are; the others have other meanings too.
_NOTHING_ELSE = frozenset({"kto_tag", "kto_label", "is_desirable", "desirable"})
_UP = frozenset({"up", "thumbs_up", "positive", "like", "liked", "+"})
_DOWN = frozenset({"down", "thumbs_down", "negative", "dislike", "disliked", "-"})


def favourable(row: Row, name: str) -> bool | None:
    """What a column says of the row's answer, also as 1 and -1; none where it says neither."""
    value = row.peek(name)
    if name == "rejected":
        return not value if isinstance(value, bool) else None
    word = normal(value) if isinstance(value, str) and name in _NOTHING_ELSE else ""
    if word in _UP or word in _DOWN:
        return word in _UP
    return False if number(value) == -1 else truth(value)


def verdict_name(row: Row) -> str | None:
    """The column with a verdict on the row's only answer."""
    name = next((name for name in VERDICTS if favourable(row, name) is not None), None)
    name = name or next((name for name in VERDICTS if name in _NOTHING_ELSE and not is_empty(row.peek(name))), None)
    single = (has_conversation(row) or has_prompt_and_answer(row)) and not has_preference(row)
    return name if single else None


def has_verdict(row: Row) -> bool:
    """Whether a row has a verdict on a single answer."""
    return verdict_name(row) is not None


def refuse_verdict(row: Row) -> None:
    """Let a row train as a demonstration only if its verdict is favourable and the recipe wants such rows.

    Raises:
        RowProblem: It may not.
    """
    name = verdict_name(row)
    if name is None:
        if row.form in VERDICT_FORMATS:
            raise RowProblem("missing_value", "the row has no verdict; expected label, as the format given has")
        return
    said = f"column '{row.column(name)}' is {row.peek(name)}"
    _require_verdict(row, name)
    if not favourable(row, name):
        hint = f"where the column means something else, columns: {{{name}: null}} of the data set takes it out"
        raise RowProblem("undesirable_answer", f"{said}: the answer is not to be imitated; {hint}")
    row.use(name)
    if row.settings.desirable_rows != "demonstrations":
        raise RowProblem(
            "single_verdict",
            f"{said}: a verdict on one answer; reading.desirable_rows: demonstrations trains the favourable ones",
        )


def _require_verdict(row: Row, name: str) -> None:
    """Refuse a verdict that cannot be read: such an answer may be a bad one."""
    if favourable(row, name) is None:
        value = quoted(repr(row.peek(name)))
        raise RowProblem("wrong_type", f"'{row.column(name)}' is {value}, expected true or false")


def unpaired(row: Row) -> RowProblem:
    """Why a row with a verdict is no pair.

    Raises:
        RowProblem: The verdict cannot be read.
    """
    name = verdict_name(row)
    assert name is not None, "recognised by it"
    _require_verdict(row, name)
    other = "unfavourable" if favourable(row, name) else "favourable"
    return RowProblem(
        "single_verdict",
        f"column '{row.column(name)}' is {row.peek(name)}, and no row has an {other} answer to the same prompt; a pair "
        "needs both".replace("an favourable", "a favourable"),
    )


@dataclass(frozen=True, slots=True)
class _Single:
    """A row with a verdict on its one answer."""

    raw: RawRow
    prompt: tuple[Message, ...]
    answer: tuple[Message, ...]
    good: bool
    rest: dict[str, Any]
    changed: frozenset[str]


@dataclass(slots=True)
class _Waiting:
    """Rows of one prompt that wait for one of the other verdict."""

    good: deque[_Single] = field(default_factory=deque)
    bad: deque[_Single] = field(default_factory=deque)


def join_verdicts(rows: Iterable[RawRow], settings: ReadingSettings) -> Iterator[RawRow]:
    """Rows with verdicts as pairs where a prompt has a favourable and an unfavourable answer.

    Each answer is used once, in the order of the file; a pair has the number of its later row. Rows that find no
    partner follow at the end as they are, in the order of the file. They are held in memory while they wait.

    Args:
        rows: Of one source; what is no row with a verdict passes as it is.
        settings: How rows are read.
    """
    waiting: dict[tuple[Message, ...], _Waiting] = {}
    for raw in rows:
        single = _single(raw, settings)
        if single is None:
            yield raw
            continue
        place = waiting.setdefault(single.prompt, _Waiting())
        own, others = (place.good, place.bad) if single.good else (place.bad, place.good)
        if not others:
            own.append(single)
            continue
        other = others.popleft()
        yield _joined(single, other) if single.good else _joined(other, single)
    left = [single.raw for place in waiting.values() for single in (*place.good, *place.bad)]
    yield from sorted(left, key=lambda raw: raw.row)


def _joined(good: _Single, bad: _Single) -> RawRow:
    """A pair made of two rows, with the number and the other columns of the later one."""
    later = max(good.raw, bad.raw, key=lambda raw: raw.row)
    rest = (good if later is good.raw else bad).rest
    made: dict[str, Any] = {JOINED: sorted(good.changed | bad.changed)}
    pair = {"prompt": to_json(good.prompt), "chosen": to_json(good.answer), "rejected": to_json(bad.answer)}
    return RawRow(later.file, later.row, {**rest, **pair, **made})


def _single(raw: RawRow, settings: ReadingSettings) -> _Single | None:
    """A row with a verdict; none for any other, and for one that cannot be read."""
    row = Row.of(raw, settings)
    name = None if raw.malformed is not None else verdict_name(row)
    good = None if name is None else favourable(row, name)
    if name is None or good is None:  # its own reading names what is wrong
        return None
    try:
        refuse_unfit(row)
        turns, context = conversation(row) if has_conversation(row) else prompt_and_answer(row)
    except RowProblem:
        return None
    if not turns[-1].trained:
        return None
    row.use(name)
    said = messages(turns)
    at = context or len(said) - 1
    kept = {*row.unused(), row.column(SOURCE)}
    # By the names known here, without what the recipe takes out: the joined row is read by its columns alone.
    rest = {name: value for name, value in row.values().items() if row.column(normal(name)) in kept}
    return _Single(raw, said[:at], said[at:], good, rest, frozenset(row.notes.changed))
