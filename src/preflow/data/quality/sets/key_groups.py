"""Rows that have the same key, found by sorting, in as little memory as the recipe allows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Keys = NDArray[np.uint64]
Bools = NDArray[np.bool_]
#: Bytes of memory that sorting takes per row.
_SORT_BYTES = 40


def partitions(keys: NDArray[np.uint64], among: Bools, memory: int) -> Iterator[Index]:
    """Rows in parts such that equal keys are in one part and each part can be sorted in the memory given.

    Args:
        keys: Shape ``(N,)``.
        among: Rows that count, shape ``(N,)``.
        memory: Bytes.
    """
    count = int(among.sum())
    parts = max(1, -(-count * _SORT_BYTES // max(memory, 1)))
    if parts == 1:
        yield np.flatnonzero(among)
        return
    for part in range(parts):
        yield np.flatnonzero(among & (keys % np.uint64(parts) == part))


def sorted_groups(keys: Keys, rows: Index) -> tuple[Index, NDArray[np.bool_]]:
    """Rows sorted by key (equal keys in the order of the rows), and whether each begins a group."""
    order = np.argsort(keys[rows], kind="stable")
    rows = rows[order]
    found = keys[rows]
    return rows, np.concatenate([[True], found[1:] != found[:-1]]) if len(rows) else np.zeros(0, bool)


def first_occurrences(keys: Keys, among: Bools, memory: int) -> Index:
    """For each row the first with the same key, itself where there is none before; -1 for rows that do not count."""
    first = np.full(len(keys), -1, np.int64)
    for part in partitions(keys, among, memory):
        rows, begins = sorted_groups(keys, part)
        if len(rows):
            heads = rows[begins]
            first[rows] = heads[np.cumsum(begins) - 1]
    return first


def with_repeated_key(keys: Keys, part: Index) -> Index:
    """Rows whose key another row has too."""
    rows, begins = sorted_groups(keys, part)
    if not len(rows):
        return rows
    alone = begins & np.concatenate([begins[1:], [True]])
    return np.sort(rows[~alone])
