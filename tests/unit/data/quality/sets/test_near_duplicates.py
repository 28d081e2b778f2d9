"""Rows at odds, answers that win everywhere, and equal rows: against a slow and plain way to find them."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preflow.data.quality.rows.word_hashes import combine
from preflow.data.quality.sets.near_duplicates import at_odds, first_of, wins
from preflow.data.quality.sets.similarity import text_similarity

#: Prompt, chosen, rejected as small numbers.
VERDICTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=25)
MEMORY = st.sampled_from([1, 200, 1 << 20])


def columns(verdicts: list[tuple[int, int, int]]) -> tuple[NDArray[np.uint64], ...]:
    prompts, chosen, rejected = (np.array(side, np.uint64) for side in zip(*verdicts, strict=True))
    return prompts, combine(prompts, chosen), combine(prompts, rejected)


def reaches(edges: set[tuple[int, int]], start: int, end: int) -> bool:
    """Whether verdicts lead from one answer to another."""
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node == end:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [worse for better, worse in edges if better == node]
    return False


@given(VERDICTS, MEMORY)
def test_verdicts_at_odds_are_those_that_a_search_finds(verdicts: list[tuple[int, int, int]], memory: int) -> None:
    prompts, chosen, rejected = columns(verdicts)
    opposed, circle = at_odds(prompts, chosen, rejected, np.ones(len(verdicts), bool), memory)
    for row, (prompt, better, worse) in enumerate(verdicts):
        edges = {(a, b) for asked, a, b in verdicts if asked == prompt and a != b}
        expected = better != worse and (worse, better) in edges
        assert opposed[row] == expected
        assert circle[row] == (better != worse and not expected and reaches(edges, worse, better))


@given(VERDICTS)
def test_wins_are_counted_by_distinct_prompts_and_as_a_share(verdicts: list[tuple[int, int, int]]) -> None:
    prompts, chosen, rejected = (np.array(side, np.uint64) for side in zip(*verdicts, strict=True))
    count, share = wins(prompts, chosen, rejected, np.ones(len(verdicts), bool))
    won, lost = Counter(a for _, a, _ in verdicts), Counter(b for _, _, b in verdicts)
    for row, (_, better, _) in enumerate(verdicts):
        if won[better] > 1:  # an answer that won once wins nowhere else
            assert count[row] == len({prompt for prompt, a, _ in verdicts if a == better})
            assert share[row] == pytest.approx(won[better] / (won[better] + lost[better]))
        else:
            assert (count[row], share[row]) == (0, 0)


@given(st.lists(st.integers(0, 5), max_size=40), st.data(), MEMORY)
def test_the_first_of_equal_rows_in_parts_as_in_one(keys: list[int], data: st.DataObject, memory: int) -> None:
    among = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    found = first_of(np.array(keys, np.uint64), np.array(among, bool), memory)
    for row, key in enumerate(keys):
        same = [other for other in range(row + 1) if keys[other] == key and among[other]]
        assert found[row] == (same[0] if among[row] else -1)


Change = Callable[[str], str]
SAME: dict[str, Change] = {
    "case": str.upper,
    "marks": lambda text: f"({text}...)",
    "order": lambda text: " ".join([*text.split()[-3:], *text.split()[:-3]]),
    "wide spaces": lambda text: text.replace(" ", " \u2003"),
    "curly marks": lambda text: text.replace("'", "\u2019"),
}
OTHER: dict[str, Change] = {
    "a number": lambda text: text.replace("12", "13"),
    "the order of numbers": lambda text: text.replace("12", "x").replace("34", "12").replace("x", "34"),
    "a sign": lambda text: text.replace("+", "/"),
}


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_texts_are_the_same_up_to_dress_and_never_with_other_numbers(change: str) -> None:
    text = "What's the sum of 12 apples + 34 pears in the basket"
    changed = {**SAME, **OTHER}[change](text)
    assert (text_similarity(text, changed) >= 0.99) == (change in SAME)
