"""Rows that belong together: equal, nearly equal, or at odds. Everything here takes time about linear in the rows."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preflow.data.quality.sets.column_store import Columns

Index = NDArray[np.int64]
Keys = NDArray[np.uint64]
Bools = NDArray[np.bool_]
#: Similarity of rows a and b of two lists, shape ``(M,)``.
Compare = Callable[[Index, Index], NDArray[np.float32]]
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


def first_of(keys: Keys, among: Bools, memory: int) -> Index:
    """For each row the first with the same key, itself where there is none before; -1 for rows that do not count."""
    first = np.full(len(keys), -1, np.int64)
    for part in partitions(keys, among, memory):
        rows, begins = sorted_groups(keys, part)
        if len(rows):
            heads = rows[begins]
            first[rows] = heads[np.cumsum(begins) - 1]
    return first


def near(
    columns: Columns, name: str, among: Bools, memory: int, agree: float, compare: Compare, least: float
) -> tuple[Index, NDArray[np.float32]]:
    """For each row an earlier one that is nearly the same.

    Rows that share a band of their MinHash signatures, and whose numbers are the same, are candidates: each is compared
    with the first and with the one before it in its group, so that large groups cost no more per row than small ones.

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
    tried = np.full(len(among), -1, np.int64)
    numbers = columns.get(f"{name}_numbers")
    for later, earlier in _candidates(columns, name, among, partner, memory):
        fresh = (numbers[later] == numbers[earlier]) & (tried[later] != earlier)
        left, right = later[fresh], earlier[fresh]
        promising = agreement(columns, name, left, columns, right) >= agree
        left, right = left[promising], right[promising]
        tried[left] = right
        if len(left):
            found = compare(left, right)
            best = found >= least
            partner[left[best]] = right[best]
            similarity[left[best]] = found[best]
    return partner, similarity


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
            later = np.flatnonzero(~begins)
            heads = np.flatnonzero(begins)[np.cumsum(begins) - 1]
            wanted = later[partner[rows[later]] < 0]
            yield from _blocks(rows[wanted], rows[heads[wanted]])
            wanted = later[(partner[rows[later]] < 0) & (heads[later] != later - 1)]
            yield from _blocks(rows[wanted], rows[wanted - 1])


def _blocks(left: Index, right: Index, size: int = 1 << 16) -> Iterator[tuple[Index, Index]]:
    for start in range(0, len(left), size):
        yield left[start : start + size], right[start : start + size]


def agreement(columns: Columns, name: str, left: Index, others: Columns, right: Index) -> NDArray[np.float32]:
    """Share of equal slots of the signatures of two sets' rows, shape ``(M,)``: an estimate of their Jaccard index."""
    parts = columns.parts(f"{name}_slots")
    total = np.zeros(len(left), np.float32)
    for part in range(parts):
        total += columns.get(f"{name}_slots", part)[left] == others.get(f"{name}_slots", part)[right]
    return total / np.float32(max(parts, 1))


def near_elsewhere(
    columns: Columns, among: Bools, others: Columns, other_among: Bools, agree: float, compare: Compare, least: float
) -> Index:
    """For each row of a set a row of another set whose prompt is nearly the same; -1 where there is none."""
    partner = np.full(len(among), -1, np.int64)
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
        place = np.searchsorted(theirs[order], ours[met])
        for left, right in _blocks(here[met], there[order[place]]):
            same = numbers[left] == other_numbers[right]
            same[same] = agreement(columns, "prompt", left[same], others, right[same]) >= agree
            found = compare(left[same], right[same]) >= least
            partner[left[same][found]] = right[same][found]
    return partner


def at_odds(prompts: Keys, chosen: Keys, rejected: Keys, among: Bools, memory: int) -> tuple[Bools, Bools]:
    """Rows whose verdict another row contradicts, and rows whose verdicts go round in a longer circle.

    Each prompt's answers are the nodes of a graph, each row an edge from rejected to chosen. An edge inside a strongly
    connected component (Tarjan 1972) lies on a circle.

    Args:
        prompts: Hash of the prompt of each row, shape ``(N,)``.
        chosen: Hash of prompt and chosen answer.
        rejected: Hash of prompt and rejected answer.
        among: Rows that count.
        memory: Bytes.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    opposed, circle = np.zeros(len(prompts), bool), np.zeros(len(prompts), bool)
    usable = among & (chosen != rejected)
    for part in partitions(prompts, usable, memory // 3):
        rows = _repeated(prompts, part)
        if not len(rows):
            continue
        nodes, at = np.unique(np.concatenate([chosen[rows], rejected[rows]]), return_inverse=True)
        winners, losers = at[: len(rows)], at[len(rows) :]
        graph = coo_array((np.ones(len(rows), np.int8), (losers, winners)), shape=(len(nodes), len(nodes)))
        _, component = connected_components(graph, directed=True, connection="strong")
        inside = component[winners] == component[losers]
        edges = losers.astype(np.int64) * len(nodes) + winners
        back = np.isin(winners.astype(np.int64) * len(nodes) + losers, edges)
        opposed[rows[back]] = True
        circle[rows[inside & ~back]] = True
    return opposed, circle


def _repeated(keys: Keys, part: Index) -> Index:
    """Rows whose key another row has too."""
    rows, begins = sorted_groups(keys, part)
    if not len(rows):
        return rows
    alone = begins & np.concatenate([begins[1:], [True]])
    return np.sort(rows[~alone])


def wins(prompts: Keys, chosen: Keys, rejected: Keys, among: Bools) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each row, against how many distinct prompts its chosen answer wins, and its share of all its comparisons."""
    count = np.zeros(len(prompts), np.int64)
    share = np.zeros(len(prompts), np.float32)
    rows = _repeated(chosen, np.flatnonzero(among))
    if not len(rows):
        return count, share
    answers, at = np.unique(chosen[rows], return_inverse=True)
    both = np.unique(np.stack([at.astype(np.uint64), prompts[rows]], axis=1), axis=0)
    distinct = np.bincount(both[:, 0].astype(np.int64), minlength=len(answers))
    won = np.bincount(at, minlength=len(answers))
    place = np.searchsorted(answers, rejected[among])
    place[place == len(answers)] = 0
    lost = np.bincount(place[answers[place] == rejected[among]], minlength=len(answers))
    count[rows], share[rows] = distinct[at], (won / (won + lost))[at]
    return count, share
