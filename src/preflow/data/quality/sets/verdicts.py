"""Preferences that cannot all hold: contradictions, cycles, and one answer that wins against everything."""

import numpy as np
from numpy.typing import NDArray

from preflow.data.quality.sets.key_groups import Bools, Keys, partitions, with_repeated_key


def contradictions_and_cycles(
    prompts: Keys, chosen: Keys, rejected: Keys, among: Bools, memory: int
) -> tuple[Bools, Bools]:
    """Rows whose preference another row contradicts, and rows whose preferences form a longer cycle.

    Each prompt's answers are the nodes of a graph, each row an edge from rejected to chosen. An edge inside a strongly
    connected component (Tarjan 1972) is on a cycle.

    Args:
        prompts: Hash of the prompt of each row, shape ``(N,)``.
        chosen: Hash of prompt and chosen answer.
        rejected: Hash of prompt and rejected answer.
        among: Rows that count.
        memory: Bytes.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    opposed, cycle = np.zeros(len(prompts), bool), np.zeros(len(prompts), bool)
    usable = among & (chosen != rejected)
    for part in partitions(prompts, usable, memory // 3):
        rows = with_repeated_key(prompts, part)
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
        cycle[rows[inside & ~back]] = True
    return opposed, cycle


def win_counts(
    prompts: Keys, chosen: Keys, rejected: Keys, among: Bools
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each row, against how many distinct prompts its chosen answer wins, and its share of all its comparisons."""
    count = np.zeros(len(prompts), np.int64)
    share = np.zeros(len(prompts), np.float32)
    rows = with_repeated_key(chosen, np.flatnonzero(among))
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
