"""A challenger's win rate over the champion as a comparison that a decision can rest on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

import numpy as np

from preflow.errors import PromotionError
from preflow.maths.clusters import cluster_numbers
from preflow.maths.intervals import Interval
from preflow.maths.paired import PairedComparison, RowScores, compare_paired
from preflow.maths.power import prompts_needed, visible_difference
from preflow.maths.signed_shares import difference_interval
from preflow.maths.significance import FEW_CLUSTERS
from preflow.maths.win_rate import HALF, Scores, length_controlled

#: Name of the test at equal length.
BOOTSTRAP_TEST = "bootstrap at equal length"


@dataclass(frozen=True, slots=True)
class PromptScores:
    """How a challenger's answers fared against the champion's, prompt by prompt, N of them.

    Attributes:
        ids: Content id of each prompt.
        clusters: The cluster of each prompt (``splits.cluster_key``).
        values: 1 for a win, 0 for a loss, between them for a tie or where verdicts differ, shape ``(N,)``.
        lengths: ``length_difference`` of the two answers, shape ``(N,)``.
    """

    ids: Sequence[str]
    clusters: Sequence[str]
    values: Scores
    lengths: Scores


def win_rate(found: PromptScores, *, alpha: float, samples: int, seed: int) -> PairedComparison:
    """The win rate against 0.5, tested by prompt; arguments as of ``compare_paired``.

    Raises:
        IncomparableError: There is no prompt.
    """
    won = RowScores(found.ids, found.clusters, found.values)
    even = RowScores(found.ids, found.clusters, np.full(len(found.ids), HALF))
    interval = partial(difference_interval, largest=HALF)
    return compare_paired(won, even, alpha=alpha, samples=samples, seed=seed, interval=interval)


def win_rate_at_equal_length(found: PromptScores, *, alpha: float, samples: int, seed: int) -> PairedComparison:
    """The length-controlled win rate against 0.5, tested by the bootstrap; arguments as of ``compare_paired``.

    Raises:
        PromotionError: It cannot be estimated; says why.
        IncomparableError: There is no prompt.
    """
    raw = win_rate(found, alpha=alpha, samples=samples, seed=seed)
    if raw.prompts < FEW_CLUSTERS:
        raise PromotionError(
            f"the win rate at equal length rests on {raw.prompts} prompts, and a bootstrap needs {FEW_CLUSTERS}: raise "
            "evaluation.kl_prompts, or use promotion.primary: win_rate"
        )
    clusters = cluster_numbers(found.clusters)
    fitted = length_controlled(found.values, found.lengths, clusters, 1 - alpha, samples, seed)
    if fitted.interval is None or fitted.p is None:
        raise PromotionError(
            f"there is no win rate at equal length: {fitted.reason}. Use promotion.primary: win_rate"
            " where length may count"
        )
    rate = fitted.interval
    gain = Interval(rate.value - HALF, rate.low - HALF, rate.high - HALF)
    spread = (rate.high - rate.low) / (2 * NormalDist().inv_cdf(1 - alpha / 2)) * math.sqrt(raw.prompts)
    return replace(
        raw,
        new=rate.value,
        difference=gain,
        test=BOOTSTRAP_TEST,
        p=fitted.p,
        visible=visible_difference(raw.prompts, spread, alpha) if spread else None,
        prompts_to_decide=prompts_needed(gain.value, spread, alpha) if gain.value and spread else None,
    )
