"""Contradictions, cycles and answers that win everywhere, against a slow and plain way to find them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preflow.data.quality.rows.word_hashes import combine
from preflow.data.quality.sets.verdicts import contradictions_and_cycles, win_counts

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
def test_contradictions_and_cycles_are_those_that_a_search_finds(
    verdicts: list[tuple[int, int, int]], memory: int
) -> None:
    prompts, chosen, rejected = columns(verdicts)
    opposed, cycle = contradictions_and_cycles(prompts, chosen, rejected, np.ones(len(verdicts), bool), memory)
    for row, (prompt, better, worse) in enumerate(verdicts):
        edges = {(a, b) for asked, a, b in verdicts if asked == prompt and a != b}
        expected = better != worse and (worse, better) in edges
        assert opposed[row] == expected
        assert cycle[row] == (better != worse and not expected and reaches(edges, worse, better))


@given(VERDICTS)
def test_wins_are_counted_by_distinct_prompts_and_as_a_share(verdicts: list[tuple[int, int, int]]) -> None:
    prompts, chosen, rejected = (np.array(side, np.uint64) for side in zip(*verdicts, strict=True))
    count, share = win_counts(prompts, chosen, rejected, np.ones(len(verdicts), bool))
    won, lost = Counter(a for _, a, _ in verdicts), Counter(b for _, _, b in verdicts)
    for row, (_, better, _) in enumerate(verdicts):
        if won[better] > 1:  # an answer that won once wins nowhere else
            assert count[row] == len({prompt for prompt, a, _ in verdicts if a == better})
            assert share[row] == pytest.approx(won[better] / (won[better] + lost[better]))
        else:
            assert (count[row], share[row]) == (0, 0)
