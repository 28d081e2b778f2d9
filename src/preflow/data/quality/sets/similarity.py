"""How alike the texts of two rows are: asked of few, after their signatures said that it may be so."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

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


class Wording:
    """A text, and what a comparison with others asks of it, each made when it is first asked for."""

    def __init__(self, text: str) -> None:
        """Take the text as it is written."""
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Its words in their one form, in order."""
        return folded_words(self.text)

    @cached_property
    def numbers(self) -> list[str]:
        """Those of its words that hold a digit."""
        return numbers_of(self.words)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word is in it."""
        return Counter(self.words)

    @cached_property
    def joined(self) -> str:
        """The words in order, as one text."""
        return " ".join(self.words)

    @cached_property
    def ordered(self) -> str:
        """The words in the alphabet's order, as one text."""
        return " ".join(sorted(self.words))


class PromptWording(Wording):
    """A prompt without the labels around it."""

    @cached_property
    def words(self) -> list[str]:
        """Its words in their one form, in order."""
        return folded_words(unwrap(self.text))


def text_similarity(left: str, right: str) -> float:
    """Similarity of two texts, 0 to 1, whatever the order of words, case and marks; 0 where their numbers differ."""
    return wording_similarity(Wording(left), Wording(right))


def wording_similarity(left: Wording, right: Wording, least: float = 0.0) -> float:
    """As ``text_similarity``; less than ``least`` where it is less, though then perhaps not as much as there is."""
    if left.numbers != right.numbers:
        return 0.0
    if not left.words or not right.words:  # marks or pictures alone
        return float(normalise(left.text) == normalise(right.text))
    found = ratio(left.ordered, right.ordered)
    if found < _SURELY:
        # A letter lost at a word's beginning moves the word among sorted ones.
        in_order = ratio(left.joined, right.joined)
        if in_order > found and in_order >= 100 * least:
            found = in_order if slips_between(left.counts, right.counts) is not None else found
    return found / 100


def prompt_similarity(left: str, right: str) -> float:
    """As ``text_similarity``, but 0 where a word of content is in one prompt alone.

    Prompts made from one template are long and differ in a single word: they ask for different things. Words that
    differ must be the same up to one slip of the hand.
    """
    return prompt_wording_similarity(PromptWording(left), PromptWording(right))


def prompt_wording_similarity(left: PromptWording, right: PromptWording) -> float:
    """As ``prompt_similarity``."""
    if left.numbers != right.numbers:
        return 0.0
    if not left.words or not right.words:
        return float(normalise(left.text) == normalise(right.text))
    slips = slips_between(left.counts, right.counts)
    if slips is None:
        return 0.0
    return 1 - slips / max(len(left.joined), len(right.joined))


def _pairs(
    columns: Columns, left: Index, others: Columns, right: Index, of: Callable[[dict[str, object]], T]
) -> Iterator[tuple[T, T]]:
    """What is compared of pairs of rows; a row of the pair before is not read again.

    In a group of rows that are alike each is compared with its first and with the one before it.
    """
    same_set = columns is others
    again = np.diff(right, prepend=-1) == 0
    before = np.concatenate(([False], right[1:] == left[:-1])) if same_set else np.zeros(len(right), bool)
    theirs = others.values(right[~again & ~before].tolist())
    ours = columns.values(left.tolist())
    one: Any = None
    other: Any = None
    for is_again, is_before in zip(again.tolist(), before.tolist(), strict=True):
        if not is_again:
            other = one if is_before else of(next(theirs))
        one = of(next(ours))
        yield one, other


def _row_wording(values: dict[str, object]) -> list[Wording]:
    return [Wording(part) for part in parts_of(values)]


def _prompt_wording(values: dict[str, object]) -> PromptWording:
    return PromptWording(first_turn(values))


def _least(ours: list[Wording], theirs: list[Wording], least: float) -> float:
    """The least similarity of two rows' parts; of parts after one that is too unlike, nothing is asked."""
    found = 1.0
    for left, right in zip(ours, theirs, strict=True):
        found = min(found, 1.0 if left.text == right.text else wording_similarity(left, right, least))
        if found < least:
            break
    return found


def rows_alike(columns: Columns, least: float) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of whole rows: the least similarity of their parts, exact where it is ``least`` or more."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        pairs = _pairs(columns, left, columns, right, _row_wording)
        return np.fromiter((_least(ours, theirs, least) for ours, theirs in pairs), np.float32, len(left))

    return compare


def prompts_alike(columns: Columns, others: Columns) -> Callable[[Index, Index], NDArray[np.float32]]:
    """A comparison of first user turns of rows of two sets."""

    def compare(left: Index, right: Index) -> NDArray[np.float32]:
        pairs = _pairs(columns, left, others, right, _prompt_wording)
        return np.fromiter((prompt_wording_similarity(ours, theirs) for ours, theirs in pairs), np.float32, len(left))

    return compare
