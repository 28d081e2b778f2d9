"""How alike the texts of two rows are: asked of few, after their signatures said that it may be so."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from preflow.data.quality.sets.column_store import Columns
from preflow.data.quality.wording.equivalence import numbers_of
from preflow.data.quality.wording.typos import slips_between, unwrap
from preflow.data.text import folded_words, normalise

Index = NDArray[np.int64]
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
    found = fuzz.ratio(" ".join(sorted(ours)), " ".join(sorted(theirs)))
    if found < _SURELY and slips_between(ours, theirs) is not None:
        # A letter lost at a word's beginning moves the word among sorted ones.
        found = max(found, fuzz.ratio(" ".join(ours), " ".join(theirs)))
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


def rows_alike(columns: Columns) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of whole rows: the least similarity of their parts."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        first = [parts_of(values) for values in columns.values(left.tolist())]
        second = [parts_of(values) for values in columns.values(right.tolist())]
        pairs = zip(first, second, strict=True)
        return np.array([min(map(text_similarity, ours, theirs)) for ours, theirs in pairs], np.float32)

    return compare


def prompts_alike(columns: Columns, others: Columns) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of first user turns of rows of two sets."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        ours = map(first_turn, columns.values(left.tolist()))
        theirs = map(first_turn, others.values(right.tolist()))
        return np.array([prompt_similarity(a, b) for a, b in zip(ours, theirs, strict=True)], np.float32)

    return compare
