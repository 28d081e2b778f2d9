"""Intervals around measured shares and means."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from preflow.maths.clusters import (
    cluster_bootstrap,
    cluster_count,
    clustered_standard_error,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with its interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As a JSON object."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Raises:
        ValueError: ``trials`` is not positive, or ``successes`` lies outside ``0..trials``.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"wilson needs 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap_mean(
    values: NDArray[np.float64],
    confidence: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
    clusters: NDArray[np.int64] | None = None,
) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979, doi:10.1214/aos/1176344552).

    Args:
        values: One number per pair, shape ``(N,)``. For a paired comparison, give each pair's difference: both
            models are then resampled together.
        confidence: Coverage of the interval.
        samples: Resamples.
        seed: Of the resampling.
        clusters: ``cluster_numbers`` of the values, shape ``(N,)``, where some share a prompt: prompts are resampled,
            each with all its values. None: every value is independent of the others.

    Raises:
        ValueError: No values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("bootstrap_mean needs at least one value, got none")
    if clusters is None:
        clusters = np.arange(values.size)
    means = cluster_bootstrap(lambda rows: float(values[rows].mean()), clusters, samples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def share_interval(
    right: NDArray[np.bool_], clusters: NDArray[np.int64], confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> Interval:
    """A share of rows with its interval, where rows may share a prompt.

    Wilson's where every prompt has one row, else the cluster bootstrap's. A share of 0 or 1, of which every resample is
    the same, has Wilson's interval for as many trials as there are prompts.

    Args:
        right: Whether each row counts, shape ``(N,)``.
        clusters: ``cluster_numbers`` of the rows, shape ``(N,)``.
        confidence: Coverage of the interval.
        samples: Resamples.
        seed: Of the resampling.

    Raises:
        ValueError: No rows.
    """
    count, successes = cluster_count(clusters), int(right.sum())
    if count == right.size:
        return wilson(successes, count, confidence)
    if successes in (0, right.size):
        return wilson(count if successes else 0, count, confidence)
    return bootstrap_mean(right.astype(np.float64), confidence, samples, seed, clusters)


def clustered_wilson(scores: NDArray[np.float64], clusters: NDArray[np.int64], confidence: float = 0.95) -> Interval:
    """Wilson's interval of a mean of scores from 0 to 1, where rows may share a prompt.

    It is for as many trials as independent rows would have the clustered standard error, times
    ``sqrt(C / (C - 1))`` (Korn and Graubard 1998), at most for as many as there are rows; for as many as there are
    prompts where the scores have no spread.

    Args:
        scores: Shape ``(N,)``.
        clusters: ``cluster_numbers`` of the rows, shape ``(N,)``.
        confidence: Coverage of the interval.

    Raises:
        ValueError: No rows.
    """
    count, trials, share = cluster_count(clusters), float(scores.size), float(scores.mean()) if scores.size else 0.0
    if count < scores.size:
        spread = standard_error(scores, clusters) ** 2 if count > 1 else 0.0
        trials = min(trials, share * (1 - share) / spread) if spread else float(count)
    return wilson(share * trials, trials, confidence)


def standard_error(values: NDArray[np.float64], clusters: NDArray[np.int64] | None = None) -> float:
    """Standard error of a mean.

    Args:
        values: Shape ``(N,)``.
        clusters: ``cluster_numbers`` of the values, shape ``(N,)``, where some share a prompt: the clustered one, times
            ``sqrt(C / (C - 1))``. None: every value is independent of the others.

    Raises:
        ValueError: Fewer than two values, or clusters, which say nothing of their spread.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        raise ValueError(f"standard_error needs at least two values, got {values.size}")
    count = values.size if clusters is None else cluster_count(clusters)
    if clusters is None or count == values.size:
        return float(values.std(ddof=1) / math.sqrt(values.size))
    return clustered_standard_error(values, clusters) * math.sqrt(count / (count - 1))
