"""How alike the texts of two rows are: asked of few, after their signatures said that it may be so."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from preflow.data.quality.sets.column_store import Columns
from preflow.data.quality.wording.equivalence import numbers_of
from preflow.data.quality.wording.letters import ratio
from preflow.data.quality.wording.typos import slips_between, unwrap
from preflow.data.text import folded_words, normalise

Index = NDArray[np.int64]
T = TypeVar("T")
#: Similarity in per cent above which another order of the words is not tried.
_SURELY = 99


def parts_of(values: dict[str, object]) -> list[str]:
    """Prompt and answers of a row in the internal form."""
    turns: list[list[dict[str, str]]]
    if "messages" in values:
        messages: list[dict[str, str]] = values["messages"]  # type: ignore[assignment]
        turns = [messages[:-1], messages[-1:]]
    else:
        turns = [values[name] for name in ("prompt", "chosen", "rejected")]  # type: ignore[misc]
    return ["\n".join(turn["content"] for turn in side) for side in turns]


def first_turn(values: dict[str, object]) -> str:
    """The first user turn of a row in the internal form."""
    messages: list[dict[str, str]] = values["messages" if "messages" in values else "prompt"]  # type: ignore[assignment]
    return next(turn["content"] for turn in messages if turn["role"] == "user")


def text_similarity(left: str, right: str) -> float:
    """Similarity of two texts, 0 to 1, whatever the order of words, case and marks; 0 where their numbers differ."""
    ours, theirs = folded_words(left), folded_words(right)
    if numbers_of(ours) != numbers_of(theirs):
        return 0.0
    if not ours or not theirs:  # marks or pictures alone
        return float(normalise(left) == normalise(right))
    found = ratio(" ".join(sorted(ours)), " ".join(sorted(theirs)))
    if found < _SURELY and slips_between(ours, theirs) is not None:
        # A letter lost at a word's beginning moves the word among sorted ones.
        found = max(found, ratio(" ".join(ours), " ".join(theirs)))
    return found / 100


def prompt_similarity(left: str, right: str) -> float:
    """As ``text_similarity``, but 0 where a word of content is in one prompt alone.

    Prompts made from one template are long and differ in a single word: they ask for different things. Words that
    differ must be the same up to one slip of the hand.
    """
    ours, theirs = (folded_words(unwrap(text)) for text in (left, right))
    if numbers_of(ours) != numbers_of(theirs):
        return 0.0
    if not ours or not theirs:
        return float(normalise(left) == normalise(right))
    slips = slips_between(ours, theirs)
    if slips is None:
        return 0.0
    return 1 - slips / max(len(" ".join(ours)), len(" ".join(theirs)))


def _texts(columns: Columns, rows: Index, of: Callable[[dict[str, object]], T]) -> Iterator[T]:
    """What is compared of some rows, one after the other; a row that follows itself is read once."""
    fresh = np.diff(rows, prepend=-1) != 0
    values = columns.values(rows[fresh].tolist())
    found: T
    for is_fresh in fresh.tolist():
        if is_fresh:
            found = of(next(values))
        yield found


def _least(ours: list[str], theirs: list[str], least: float) -> float:
    """The least similarity of two rows' parts; of parts after one that is too unlike, nothing is asked."""
    found = 1.0
    for left, right in zip(ours, theirs, strict=True):
        found = min(found, 1.0 if left == right else text_similarity(left, right))
        if found < least:
            break
    return found


def rows_alike(columns: Columns, least: float) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of whole rows: the least similarity of their parts, exact where it is ``least`` or more."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        pairs = zip(_texts(columns, left, parts_of), _texts(columns, right, parts_of), strict=True)
        return np.fromiter((_least(ours, theirs, least) for ours, theirs in pairs), np.float32, len(left))

    return compare


def prompts_alike(columns: Columns, others: Columns) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of first user turns of rows of two sets."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        pairs = zip(_texts(columns, left, first_turn), _texts(others, right, first_turn), strict=True)
        return np.fromiter((prompt_similarity(ours, theirs) for ours, theirs in pairs), np.float32, len(left))

    return compare
