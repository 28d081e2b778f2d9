"""What a collected review came to, as ``human_review.json`` of a run keeps it and as a promotion reads it."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from preflow.config.base import Frozen
from preflow.maths.intervals import Interval
from preflow.maths.paired import RowScores

#: The file of a pipeline run in MLflow with all its collected reviews.
HUMAN_REVIEW = "human_review.json"
#: Which prompts the answers of a review are to: held-out ones, for a win rate, or training prompts, for new pairs.
Prompts = Literal["test", "train"]


class Compared(Frozen):
    """One of the two models of a review."""

    name: str
    """``dpo``, ``sft`` or ``base``."""
    run: str
    """MLflow's id of the pipeline run that made it, or that used it as its base."""
    digest: str
    """Digest of the stage's artifact, as registered versions have it; of the base weights for ``base``."""


class HumanReview(Frozen):
    """A collected review of answers to held-out prompts."""

    review: int
    """Its number among the reviews of its recipe."""
    against: str
    """What was asked for: ``champion``, ``sft`` or ``base``."""
    models: tuple[Compared, Compared]
    """The new model and the other one."""
    prompt_ids: tuple[str, ...]
    """Content id of each of N prompts (``rows.content_id``), those with an answer."""
    clusters: tuple[str, ...]
    """The cluster of each prompt (``splits.cluster_key``)."""
    scores: tuple[float, ...]
    """Per prompt the mean over reviewers: 1 where the new model's answer is better, 0 where the other's, else 0.5."""
    win_rate: tuple[float, float, float] | None
    """Mean of the scores with its interval, resampled by cluster; None where the review does not count."""
    p: float | None
    """Two-sided p value that the win rate is 0.5 (``significance.paired_significance``)."""
    reason: str
    """Why the review does not count: open questions, agreement below the minimum; empty where it does."""
    warnings: tuple[str, ...] = ()
    """Reviewers whose answers look unreliable."""

    @property
    def counts(self) -> bool:
        """Whether its win rate may be used."""
        return not self.reason

    @property
    def interval(self) -> Interval | None:
        """The win rate with its interval."""
        return None if self.win_rate is None else Interval(*self.win_rate)

    def rows(self) -> tuple[RowScores, RowScores]:
        """The scores of the new model and those of the other one (1 minus them), for ``paired.compare_paired``."""
        scores = np.array(self.scores, dtype=np.float64)
        new, old = (RowScores(self.prompt_ids, self.clusters, values) for values in (scores, 1 - scores))
        return new, old

    @classmethod
    def of(cls, report: dict[str, Any]) -> Self:
        """Read one entry of ``human_review.json``."""
        rows, rate = report["rows"], report["win_rate"]
        return cls(
            review=report["review"],
            against=report["against"],
            models=report["models"],
            prompt_ids=tuple(row["prompt_id"] for row in rows),
            clusters=tuple(row["cluster"] for row in rows),
            scores=tuple(row["score"] for row in rows),
            win_rate=None if rate is None else (rate["value"], rate["low"], rate["high"]),
            p=report["p"],
            reason=report["reason"],
            warnings=report["warnings"],
        )


def reviews_of(kept: Sequence[dict[str, Any]]) -> list[HumanReview]:
    """The reviews of held-out prompts among the entries of ``human_review.json``, the newest last."""
    tests = [report for report in kept if report["prompts"] == "test"]
    return [HumanReview.of(report) for report in sorted(tests, key=lambda report: int(report["review"]))]


def with_report(kept: Sequence[dict[str, Any]], report: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries with one added, in place of an earlier one of the same review."""
    others = [each for each in kept if each["review"] != report["review"]]
    return sorted([*others, report], key=lambda each: int(each["review"]))
