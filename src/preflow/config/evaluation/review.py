"""Settings of human review: the section ``evaluation.review`` of a recipe."""

from pydantic import Field

from preflow.config.base import COSMETIC, Frozen

_CRITERIA = "Which answer is more helpful, correct and harmless, and better suited to what was asked?"


class ReviewSettings(Frozen):
    """How people compare two models' answers (``preflow review``).

    A review keeps the settings that it was opened with.
    """

    criteria: str = Field(default=_CRITERIA, json_schema_extra=COSMETIC)
    """What reviewers are asked."""
    repeats: float = Field(default=0.1, ge=0.0, le=0.5, json_schema_extra=COSMETIC)
    """Share of the pairs that each reviewer is shown once more, in the other order: does the verdict stay the same?"""
    gold: float = Field(default=0.05, ge=0.0, le=0.5, json_schema_extra=COSMETIC)
    """Held-out human pairs among the questions, as a share of the pairs: does the reviewer agree with the data?"""
    min_agreement: float = Field(default=0.2, ge=-1.0, le=1.0, json_schema_extra=COSMETIC)
    """Least agreement of the reviewers beyond chance (kappa or alpha); below it there is no win rate, no new pair."""
