"""Rows that share a prompt form a cluster: they are no independent observations, so whole clusters are resampled."""

import math
from collections.abc import Callable, Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def cluster_numbers(keys: Iterable[Hashable]) -> Rows:
    """The number of each row's cluster, counted from 0 in order of first appearance, shape ``(N,)``.

    Args:
        keys: What the rows of one cluster have in common (the hash of the first user turn, say), N of them.
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def cluster_count(clusters: Rows) -> int:
    """How many clusters the rows belong to."""
    return int(clusters.max()) + 1 if clusters.size else 0


def cluster_sums(values: NDArray[np.float64], clusters: Rows) -> NDArray[np.float64]:
    """The sum of the values of each cluster, shape ``(C,)``."""
    return np.bincount(clusters, weights=values, minlength=cluster_count(clusters)).astype(np.float64)


def clustered_standard_error(values: NDArray[np.float64], clusters: Rows) -> float:
    """Standard error of a mean over rows in clusters (Miller 2024, arXiv:2411.00640, section 2.2).

    ``sqrt(sum_c (sum_{i in c} (s_i - mean))^2) / N``: with one row per cluster the usual one of a mean, with the
    divisor N in place of N - 1.

    Args:
        values: One number per row, shape ``(N,)``.
        clusters: ``cluster_numbers`` of the rows, shape ``(N,)``.

    Raises:
        ValueError: Fewer than two clusters, which say nothing of their spread.
    """
    if cluster_count(clusters) < 2:
        raise ValueError(f"clustered_standard_error needs at least two clusters, got {cluster_count(clusters)}")
    deviations = cluster_sums(values - values.mean(), clusters)
    return float(math.sqrt((deviations**2).sum()) / values.size)


def cluster_bootstrap(
    statistic: Callable[[Rows], float], clusters: Rows, samples: int, seed: int
) -> NDArray[np.float64]:
    """A statistic on resampled prompts, each with all its rows; the whole statistic is computed anew every time.

    With one row per cluster this is the bootstrap over rows (Efron 1979, doi:10.1214/aos/1176344552), draw for draw.

    Args:
        statistic: Takes the numbers of the drawn rows, with repeats, in any order.
        clusters: ``cluster_numbers`` of the rows, shape ``(N,)``.
        samples: Resamples.
        seed: Of the resampling.

    Returns:
        The statistic of each resample, shape ``(samples,)``.

    Raises:
        ValueError: No rows.
    """
    count = cluster_count(clusters)
    if count == 0:
        raise ValueError("cluster_bootstrap needs at least one row, got none")
    by_cluster = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters, minlength=count)
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)

    def drawn_rows() -> Rows:
        drawn = rng.integers(0, count, count)
        if count < clusters.size:
            lengths = sizes[drawn]
            ends = np.cumsum(lengths)
            drawn = np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - lengths), lengths)
        rows: Rows = by_cluster[drawn]
        return rows

    return np.array([statistic(drawn_rows()) for _ in range(samples)], dtype=np.float64)
