"""Win rates of answers that a judge has compared in both orders, and what is left of them at equal length."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.maths.clusters import cluster_bootstrap
from preflow.maths.intervals import Interval
from preflow.maths.significance import sign_test

Scores = NDArray[np.float64]
#: The win rate of two models that are equally good.
HALF = 0.5
#: Least share of prompts on each side of equal length from which the effect of length is estimated.
LEAST_SHARE = 0.05
#: A coefficient beyond this is no fit: the answers are separated by length, or one side wins all.
_LARGEST = 15.0
_STEPS, _PRECISION = 50, 1e-10
#: Share of resamples that may have no fit.
_UNFIT_RESAMPLES = 0.05


@dataclass(frozen=True, slots=True)
class BothOrders:
    """How a new model's answers fared, each compared twice with the other's.

    Attributes:
        shown_first: 1, 0.5 or 0 for a win, tie or loss where the new answer was shown first, shape ``(N,)``.
        shown_second: The same where it was shown second, shape ``(N,)``.
    """

    shown_first: Scores
    shown_second: Scores

    @property
    def scores(self) -> Scores:
        """The mean of both orders, shape ``(N,)``: a verdict that the order turns around is worth a half."""
        return (self.shown_first + self.shown_second) / 2

    @property
    def consistency(self) -> float:
        """Share of pairs with the same verdict in both orders."""
        return float((self.shown_first == self.shown_second).mean())

    def consistent(self) -> tuple[int, int]:
        """Wins and losses that both orders agree on."""
        same = self.shown_first == self.shown_second
        return int((same & (self.shown_first == 1)).sum()), int((same & (self.shown_first == 0)).sum())

    def ties(self) -> int:
        """Ties in both orders; a verdict that the order turns around is none."""
        return int(((self.shown_first == 0.5) & (self.shown_second == 0.5)).sum())

    def p(self) -> float:
        """Two-sided p value of the exact sign test on wins and losses that both orders agree on."""
        return sign_test(*self.consistent())

    @property
    def first_share(self) -> float | None:
        """Share of the verdicts for one side that were for the answer shown first; None where all are ties.

        0.5 is a judge without a bias of position.
        """
        first = int((self.shown_first == 1).sum() + (self.shown_second == 0).sum())
        second = int((self.shown_first == 0).sum() + (self.shown_second == 1).sum())
        return first / (first + second) if first + second else None


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate at equal length, or the reason why there is none.

    Attributes:
        interval: The win rate with its interval; None where it cannot be estimated.
        reason: Why not; empty where there is one.
        slope: Effect of length on the log-odds of a win; None where it cannot be estimated.
        p: Two-sided p value of the bootstrap that the win rate is 0.5; None where it cannot be estimated.
    """

    interval: Interval | None
    reason: str = ""
    slope: float | None = None
    p: float | None = None


def length_difference(new: NDArray[np.int64], old: NDArray[np.int64]) -> Scores:
    """``(a - b) / (a + b)`` of two lengths, -1 to 1, 0 where both are 0, shape ``(N,)``."""
    total = (new + old).astype(np.float64)
    found: Scores = np.divide(new - old, total, out=np.zeros_like(total), where=total > 0)
    return found


def fit_length(scores: Scores, lengths: Scores) -> tuple[float, float] | None:
    """Theta and g of ``logit P(win) = theta + g x``, by maximum likelihood; None where there is no finite fit.

    Bradley and Terry (1952) with a covariate, as AlpacaEval 2's length control (Dubois et al. 2024, arXiv:2404.04475,
    equation 1) without terms that are known for its own prompts alone. A tie is half a win (soft labels).

    Args:
        scores: 0 to 1, shape ``(N,)``.
        lengths: x, ``length_difference`` of the answers, shape ``(N,)``.
    """
    design = np.stack([np.ones_like(lengths), lengths], axis=1)
    coefficients = np.zeros(2)
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-design @ coefficients))
        curvature = design.T @ (design * (chances * (1 - chances))[:, None])
        if abs(np.linalg.det(curvature)) < _PRECISION:
            return None
        step = np.linalg.solve(curvature, design.T @ (scores - chances))
        coefficients = coefficients + step
        if np.abs(coefficients).max() > _LARGEST:
            return None
        if np.abs(step).max() < _PRECISION:
            return float(coefficients[0]), float(coefficients[1])
    return None


def length_controlled(
    scores: Scores, lengths: Scores, clusters: NDArray[np.int64], confidence: float, samples: int, seed: int
) -> LengthControlled:
    """The win rate that the fit gives at equal length, ``1 / (1 + exp(-theta))``, fitted anew in every resample.

    Args:
        scores: ``BothOrders.scores``, shape ``(N,)``.
        lengths: ``length_difference`` of the answers, shape ``(N,)``.
        clusters: ``cluster_numbers`` of the prompts, shape ``(N,)``.
        confidence: Coverage of the interval.
        samples: Resamples.
        seed: Of the resampling.
    """
    longer, shorter = float((lengths > 0).mean()), float((lengths < 0).mean())
    if min(longer, shorter) < LEAST_SHARE:
        return LengthControlled(
            None, f"longer on {longer:.0%} and shorter on {shorter:.0%} of the prompts: expected {LEAST_SHARE:.0%} each"
        )
    fitted = fit_length(scores, lengths)
    if fitted is None:
        return LengthControlled(None, "one side wins all, or length alone tells the winner: no finite fit")

    def at_equal_length(rows: NDArray[np.int64]) -> float:
        found = fit_length(scores[rows], lengths[rows])
        return math.nan if found is None else 1 / (1 + math.exp(-found[0]))

    drawn = cluster_bootstrap(at_equal_length, clusters, samples, seed)
    if np.isnan(drawn).mean() > _UNFIT_RESAMPLES:
        return LengthControlled(None, f"{np.isnan(drawn).mean():.0%} of the resamples have no finite fit")
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    made = drawn[~np.isnan(drawn)]
    beyond = min(int((made <= HALF).sum()), int((made >= HALF).sum()))  # Davison and Hinkley 1997, equation 4.12
    p = min(1.0, 2 * (1 + beyond) / (1 + made.size))
    rate = Interval(1 / (1 + math.exp(-fitted[0])), float(low), float(high))
    return LengthControlled(rate, slope=fitted[1], p=p)
