"""Two models compared on the held-out rows that both were measured on, paired by the rows' content ids."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.errors import IncomparableError
from preflow.maths.clusters import cluster_count, cluster_numbers, clustered_standard_error
from preflow.maths.intervals import Interval, bootstrap_mean
from preflow.maths.power import prompts_needed, visible_difference
from preflow.maths.significance import MCNEMAR, SIGN_TEST, paired_significance


@dataclass(frozen=True, slots=True)
class RowScores:
    """One measure of one model, row by row.

    Attributes:
        ids: Content id of each of N rows (``Pair.content_id``, or a hash of a prompt); repeats count once.
        clusters: The cluster of each row: what rows of one prompt have in common (``splits.cluster_key``).
        values: The measure on each row, more being better, shape ``(N,)``: 1 or 0 where a row is right or wrong.
    """

    ids: Sequence[str]
    clusters: Sequence[str]
    values: NDArray[np.float64]

    def by_id(self) -> dict[str, tuple[str, float]]:
        """Cluster and value of each row, by its id."""
        found: dict[str, tuple[str, float]] = {}
        for row, cluster, value in zip(self.ids, self.clusters, self.values.tolist(), strict=True):
            found.setdefault(row, (cluster, value))
        return found


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """How a new model differs from an old one on the rows that both were measured on.

    Attributes:
        rows: Shared rows, n.
        prompts: Clusters of them: the independent observations.
        new_share: Share of the new model's rows that are shared, 0 to 1.
        old_share: The same of the old model's.
        new: The new model's mean over the shared rows.
        old: The old model's.
        difference: New minus old with its interval (cluster bootstrap, where no other is asked for). With fewer than 30
            prompts the bootstrap's is somewhat narrow: ``p`` decides, not whether the interval holds 0.
        test: The test that gave ``p`` (``significance.paired_significance``).
        p: Two-sided p value that the difference is 0.
        better: Prompts on which the new model is better (discordant, in its favour).
        worse: Prompts on which it is worse (discordant, against it).
        equal: Prompts without a difference.
        visible: Smallest difference that so many prompts with this spread show at ``alpha`` with power 0.8; None
            where there is no spread.
        prompts_to_decide: How many prompts would show the difference found, at ``alpha`` with power 0.8; None where
            no number would, as the difference or the spread is 0.
        alpha: Level that the two numbers before and the interval are for.
    """

    rows: int
    prompts: int
    new_share: float
    old_share: float
    new: float
    old: float
    difference: Interval
    test: str
    p: float
    better: int
    worse: int
    equal: int
    visible: float | None
    prompts_to_decide: int | None
    alpha: float

    @property
    def counts_prompts(self) -> bool:
        """Whether the test counts prompts that are better and worse, and not how much: the sign test, McNemar's."""
        return self.test in (SIGN_TEST, MCNEMAR)

    @property
    def direction(self) -> int:
        """What the test speaks for: 1 the new model, -1 the old one, 0 neither.

        A prompt of many rows has their weight in ``difference`` and counts once in a sign test, so the two can have
        opposite signs.
        """
        found = self.better - self.worse if self.counts_prompts else self.difference.value
        return (found > 0) - (found < 0)

    @property
    def is_mixed(self) -> bool:
        """Whether the test and ``difference`` speak for different models."""
        value = self.difference.value
        return self.direction != (value > 0) - (value < 0)

    def require_shared(self, least: float) -> None:
        """Raise if too little of either set of rows is shared for the comparison to speak of the models.

        Raises:
            IncomparableError: Names the numbers and the least share.
        """
        if min(self.new_share, self.old_share) < least:
            raise IncomparableError(
                f"the two models share {self.rows} held-out rows, {self.new_share:.0%} of the one's and "
                f"{self.old_share:.0%} of the other's: expected at least {least:.0%} of both. Evaluate both on the "
                "same held-out data"
            )


def compare_paired(
    new: RowScores,
    old: RowScores,
    *,
    alpha: float = 0.05,
    samples: int = 2000,
    seed: int = 0,
    interval: Callable[..., Interval] = bootstrap_mean,
) -> PairedComparison:
    """Compare two models on the rows that both were measured on.

    The result does not depend on the order of the rows, and swapping the models changes signs alone.

    Args:
        new: The measure of the new model (challenger).
        old: The same measure of the old one (champion, baseline).
        alpha: Level; the interval covers ``1 - alpha``.
        samples: Resamples of the bootstrap.
        seed: Of the bootstrap.
        interval: What gives the interval of the difference; arguments as of ``bootstrap_mean``.

    Raises:
        IncomparableError: No row is shared.
    """
    ours, theirs = new.by_id(), old.by_id()
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise IncomparableError(
            f"the two models share no held-out row: {len(ours)} of the one, {len(theirs)} of the other. Evaluate both "
            "on the same held-out data"
        )
    clusters = cluster_numbers([ours[row][0] for row in shared])
    new_values, old_values = (np.array([table[row][1] for row in shared]) for table in (ours, theirs))
    differences = new_values - old_values
    result, count = paired_significance(differences, clusters), cluster_count(clusters)
    mean = float(differences.mean())
    sd = clustered_standard_error(differences, clusters) * math.sqrt(count) if count > 1 else 0.0
    return PairedComparison(
        rows=len(shared),
        prompts=count,
        new_share=len(shared) / len(ours),
        old_share=len(shared) / len(theirs),
        new=float(new_values.mean()),
        old=float(old_values.mean()),
        difference=interval(differences, 1 - alpha, samples, seed, clusters),
        test=result.test,
        p=result.p,
        better=result.better,
        worse=result.worse,
        equal=result.equal,
        visible=visible_difference(count, sd, alpha) if sd else None,
        prompts_to_decide=prompts_needed(mean, sd, alpha) if mean and sd else None,
        alpha=alpha,
    )
