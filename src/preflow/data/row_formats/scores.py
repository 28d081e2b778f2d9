"""Scores beside a pair: whether they say what the columns chosen and rejected say."""

from typing import Any

from preflow.data.row_formats.cells import number
from preflow.data.row_formats.names import MARGINS, SCORE_PAIRS
from preflow.data.row_formats.row import Row

#: Keys of an answer with its score.
_WORDS = ("score", "rating", "reward")
#: Columns with both scores, the chosen answer's first, unless others tell an order of their own.
BOTH = ("rating", "ratings", "scores")
_OTHER_ORDER = ("order", "generations", "completions", "responses")


def compare_scores(row: Row) -> str | None:
    """``agree``, ``tie`` or ``inverted``; none where a row has no scores."""
    difference = _difference(row)
    if difference is None:
        return None
    return "agree" if difference > 0 else "inverted" if difference < 0 else "tie"


def _difference(row: Row) -> float | None:
    found: float | None = None
    for better, worse in SCORE_PAIRS:
        both = number(row.peek(better)), number(row.peek(worse))
        if both[0] is not None and both[1] is not None:
            row.use(better, worse)
            found = both[0] - both[1] if found is None else found
    for name in MARGINS:
        margin = number(row.peek(name))
        if margin is not None:
            row.use(name)
            found = margin if found is None else found
    if found is None and not any(row.given(name) for name in _OTHER_ORDER):
        found = next((value for name in BOTH if (value := _two(row, name)) is not None), None)
    return found if found is not None else _in_turns(row)


def _two(row: Row, name: str) -> float | None:
    value: Any = row.peek(name)
    if isinstance(value, dict):
        value = [value.get("chosen"), value.get("rejected")]
    if not isinstance(value, list) or len(value) != 2:
        return None
    better, worse = map(number, value)
    if better is None or worse is None:
        return None
    row.use(name)
    return better - worse


def _in_turns(row: Row) -> float | None:
    """Scores among the keys of the answers themselves."""
    values = [row.peek(name) for name in ("chosen", "rejected")]
    last = [value[-1] if isinstance(value, list) and value else value for value in values]
    for word in _WORDS:
        both = [number(value.get(word)) if isinstance(value, dict) else None for value in last]
        if both[0] is not None and both[1] is not None:
            row.notes.turn_keys.discard(word)
            return both[0] - both[1]
    return None
