"""Tests of paired differences, and what several of them at once, or one after the other, have to pay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.maths.clusters import cluster_count, cluster_sums, clustered_standard_error

#: Below so many clusters neither a bootstrap nor a normal approximation holds its level: the sign test alone counts.
FEW_CLUSTERS = 30
SIGN_TEST = "exact sign test"
MCNEMAR = "McNemar's exact test"
CLUSTERED_T_TEST = "clustered t-test"


@dataclass(frozen=True, slots=True)
class Significance:
    """Outcome of a two-sided test that a paired difference is zero.

    Attributes:
        test: Which test was used.
        p: Its p value.
        better: Prompts with a difference above 0.
        worse: Prompts with a difference below 0.
        equal: Prompts without one.
    """

    test: str
    p: float
    better: int
    worse: int
    equal: int


def sign_test(better: int, worse: int) -> float:
    """Two-sided p value of the exact sign test; of McNemar's exact test (1947), where these are the discordant pairs.

    ``p = min(1, 2 sum_{i <= min(b, c)} C(b + c, i) / 2^(b + c))``; ties count for neither side.
    """
    from scipy import stats  # takes seconds to import, and a rollback needs none

    return float(stats.binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def paired_significance(differences: NDArray[np.float64], clusters: NDArray[np.int64]) -> Significance:
    """Test whether a paired difference has mean zero, with prompts as the independent observations.

    The exact sign test over prompts where there are fewer than 30 of them, and wherever the prompts' differences have
    all one size (a win, a tie, a loss): on rows that are right or wrong, one per prompt, that is McNemar's exact test.
    Else a t-test with the clustered standard error and C - 1 degrees of freedom (Cameron and Miller 2015,
    doi:10.3368/jhr.50.2.317): with one row per prompt it is the paired t-test.

    Args:
        differences: New minus old, one per row, shape ``(N,)``.
        clusters: ``cluster_numbers`` of the rows, shape ``(N,)``.

    Raises:
        ValueError: No rows.
    """
    if differences.size == 0:
        raise ValueError("paired_significance needs at least one row, got none")
    count = cluster_count(clusters)
    means = cluster_sums(differences, clusters) / np.bincount(clusters)
    better, worse = int((means > 0).sum()), int((means < 0).sum())
    sizes = np.unique(np.abs(means[means != 0]))
    if count < FEW_CLUSTERS or sizes.size <= 1:
        one_row_each = count == differences.size and sizes.tolist() in ([], [1.0])
        test, p = MCNEMAR if one_row_each else SIGN_TEST, sign_test(better, worse)
    else:
        from scipy import stats

        error = clustered_standard_error(differences, clusters) * math.sqrt(count / (count - 1))
        test, p = CLUSTERED_T_TEST, float(2 * stats.t.sf(abs(differences.mean()) / error, count - 1))
    return Significance(test, p, better, worse, count - better - worse)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of several tests, adjusted so that one false alarm among all of them has the level (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one before it,
    and none exceeds 1.

    Returns:
        The adjusted values, in the order given.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def spent_alpha(alpha: float, decision: int) -> float:
    """The level of the k-th decision on one held-out set: ``alpha / (k (k + 1))``, which sums to ``alpha`` for ever.

    Args:
        alpha: Level of all decisions together.
        decision: k, from 1.

    Raises:
        ValueError: ``decision`` is below 1.
    """
    if decision < 1:
        raise ValueError(f"spent_alpha needs a decision from 1 on, got {decision}")
    return alpha / (decision * (decision + 1))
