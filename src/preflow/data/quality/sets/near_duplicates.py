"""Rows that are nearly equal, in one set or in two, found in time about linear in the rows."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preflow.data.quality.sets.column_store import Columns
from preflow.data.quality.sets.key_groups import Bools, Index, partitions, sorted_groups

#: Comparisons of texts of one row that may fail before it counts as like no other.
_TRIES = 4
#: Rows of a group that are compared before its others, and fewest of them alike for the others to be compared too.
_FIRST, _FEWEST_ALIKE = 256, 32
#: Similarity of rows a and b of two lists, shape ``(M,)``.
Compare = Callable[[Index, Index], NDArray[np.float32]]


def near_rows(
    columns: Columns, name: str, among: Bools, memory: int, agree: float, compare: Compare, least: float
) -> tuple[Index, NDArray[np.float32]]:
    """For each row an earlier one that is nearly the same.

    Rows that share a band of their MinHash signatures, and whose numbers are the same, are candidates: each is compared
    with the first and with the one before it in its group, so that large groups cost no more per row than small ones,
    and with at most four rows whose signature is like its own but whose text is not. A large group of whose first rows
    hardly any are alike is one template with other words in it: rows of it that are nearly the same meet in bands of
    those words.

    Args:
        columns: Where ``<name>_bands`` and ``<name>_slots`` lie.
        name: ``row`` or ``prompt``.
        among: Rows that count.
        memory: Bytes.
        agree: Least share of equal slots for a comparison of the texts.
        compare: The similarity of two rows' texts.
        least: Similarity from which a candidate is taken.

    Returns:
        The earlier row, -1 where there is none, and the similarity, NaN likewise; shape ``(N,)`` each.
    """
    partner = np.full(len(among), -1, np.int64)
    similarity = np.full(len(among), np.nan, np.float32)
    tried = _Tried(len(among))
    numbers = columns.get(f"{name}_numbers")
    for later, earlier in _candidates(columns, name, among, partner, memory):
        fresh = (numbers[later] == numbers[earlier]) & tried.may_try(later, earlier)
        left, right = later[fresh], earlier[fresh]
        promising = signature_agreement(columns, name, left, columns, right) >= agree
        left, right = left[promising], right[promising]
        tried.note(left, right)
        if len(left):
            found = compare(left, right)
            best = found >= least
            partner[left[best]] = right[best]
            similarity[left[best]] = found[best]
    return partner, similarity


class _Tried:
    """With which rows each row was compared: with none twice, and with no more than a few."""

    def __init__(self, rows: int) -> None:
        self._partners = np.full((_TRIES, rows), -1, np.int32)
        self._times = np.zeros(rows, np.uint8)

    def may_try(self, left: Index, right: Index) -> Bools:
        """Which pairs of rows are to be compared, shape ``(M,)``; the rows of ``left`` differ."""
        found = self._times[left] < _TRIES
        for partners in self._partners:
            found &= partners[left] != right
        return np.asarray(found)

    def note(self, left: Index, right: Index) -> None:
        """Count pairs as compared."""
        self._partners[self._times[left], left] = right
        self._times[left] += 1


def _candidates(
    columns: Columns, name: str, among: Bools, partner: Index, memory: int
) -> Iterator[tuple[Index, Index]]:
    """Pairs of rows (later, earlier) that meet in a band; rows that have a partner are left out of later bands."""
    bands = [
        ("bag" if name == "row" else "first", 0),
        *((f"{name}_bands", n) for n in range(columns.parts(f"{name}_bands"))),
    ]
    for column, number in bands:
        keys = columns.get(column, number).astype(np.uint64)
        for part in partitions(keys, among, memory):
            rows, begins = sorted_groups(keys, part)
            if begins.all():
                continue
            heads = np.flatnonzero(begins)[np.cumsum(begins) - 1]
            for now in _in_turn(rows, begins, partner):
                later = np.flatnonzero(now & ~begins)
                wanted = later[partner[rows[later]] < 0]
                yield from _blocks(rows[wanted], rows[heads[wanted]])
                wanted = later[(partner[rows[later]] < 0) & (heads[later] != later - 1)]
                yield from _blocks(rows[wanted], rows[wanted - 1])


def _in_turn(rows: Index, begins: Bools, partner: Index) -> Iterator[Bools]:
    """Which rows of sorted groups are compared first, and then which of the others, shape ``(M,)`` each."""
    starts, group = np.flatnonzero(begins), np.cumsum(begins) - 1
    first = np.arange(len(rows)) - starts[group] < _FIRST
    yield first
    if not first.all():
        alike = np.add.reduceat(first & (partner[rows] >= 0), starts, dtype=np.int64)
        yield ~first & (alike >= _FEWEST_ALIKE)[group]


def _blocks(left: Index, right: Index, size: int = 1 << 16) -> Iterator[tuple[Index, Index]]:
    for start in range(0, len(left), size):
        yield left[start : start + size], right[start : start + size]


def signature_agreement(columns: Columns, name: str, left: Index, others: Columns, right: Index) -> NDArray[np.float32]:
    """Share of equal slots of the signatures of two sets' rows, shape ``(M,)``: an estimate of their Jaccard index."""
    parts = columns.parts(f"{name}_slots")
    total = np.zeros(len(left), np.float32)
    for part in range(parts):
        total += columns.get(f"{name}_slots", part)[left] == others.get(f"{name}_slots", part)[right]
    return total / np.float32(max(parts, 1))


def near_rows_of_another_set(
    columns: Columns, among: Bools, others: Columns, other_among: Bools, agree: float, compare: Compare, least: float
) -> Index:
    """For each row of a set a row of another set whose prompt is nearly the same; -1 where there is none."""
    partner, tried = np.full(len(among), -1, np.int64), _Tried(len(among))
    there = np.flatnonzero(other_among)
    numbers, other_numbers = columns.get("prompt_numbers"), others.get("prompt_numbers")
    names = ("first", "prompt_halves", "prompt_bands")
    bands = [(name, number) for name in names for number in range(columns.parts(name))]
    for column, number in bands if len(there) else ():
        theirs = others.get(column, number)[there]
        order = np.argsort(theirs, kind="stable")
        here = np.flatnonzero(among & (partner < 0))
        ours = columns.get(column, number)[here]
        met = pd.Series(ours).isin(theirs).to_numpy()  # by hash: few meet, and only those are looked up in order
        rows, begins = sorted_groups(ours, np.flatnonzero(met))
        place = np.searchsorted(theirs[order], ours[rows])
        candidates = here[rows], there[order[place]]
        turns = _in_turn(candidates[0], begins, partner) if len(rows) else ()
        for left, right in (pair for now in turns for pair in _blocks(candidates[0][now], candidates[1][now])):
            same = (numbers[left] == other_numbers[right]) & tried.may_try(left, right)
            same[same] = signature_agreement(columns, "prompt", left[same], others, right[same]) >= agree
            tried.note(left[same], right[same])
            found = compare(left[same], right[same]) >= least
            partner[left[same][found]] = right[same][found]
    return partner
