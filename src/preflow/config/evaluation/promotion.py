"""Settings of the promotion of a finished model to champion: the section ``promotion:`` of a recipe."""

from typing import Literal

from pydantic import Field

from preflow.config.base import COSMETIC, Frozen

#: Measures on held-out rows by which one model is better than another.
Primary = Literal["preference_accuracy", "win_rate", "win_rate_lc", "human_win_rate"]


class Guards(Frozen):
    """What a new champion must not do, however much better it is by the primary measure."""

    kl: float = Field(default=10.0, gt=0, json_schema_extra=COSMETIC)
    """Most KL of the challenger from the reference of its own run, nats per response that it samples itself."""
    length_ratio: float = Field(default=1.3, ge=1.0, json_schema_extra=COSMETIC)
    """Most times that the challenger's sampled responses are as long as the champion's, in tokens."""
    perplexity_ratio: float = Field(default=1.1, ge=1.0, json_schema_extra=COSMETIC)
    """Most times that the challenger's perplexity on held-out demonstrations is the champion's."""
    benchmark_margin: float = Field(default=0.02, ge=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """Loss in each benchmark of the recipe that must be ruled out: the lower bound of the paired difference to the
    champion must lie above minus this."""
    win_rate: float | None = Field(default=None, gt=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """Win rate over the champion, by the judge, above which the lower bound of its interval must lie (0.45, say)."""
    human_win_rate: float | None = Field(default=None, gt=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """The same of the win rate that people gave in the newest review (``preflow review``)."""


class PromotionSettings(Frozen):
    """When a finished model becomes the champion in MLflow's registry (``preflow promote``)."""

    model_name: str | None = Field(default=None, pattern=r"^[\w][\w.\- ]*$", json_schema_extra=COSMETIC)
    """The registered model's name; the recipe's where not given. Recipes that share it compete for one champion."""
    primary: Primary = Field(default="preference_accuracy", json_schema_extra=COSMETIC)
    """The measure by which the challenger must be better, on the same held-out rows as the champion. ``win_rate`` and
    ``win_rate_lc`` (at equal length) are those of ``evaluation.judge`` over the champion, ``human_win_rate`` that of
    the newest review of the challenger's answers against the champion's; a gain is what lies above 0.5."""
    min_gain: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=COSMETIC)
    """Gain in the primary measure above which the whole interval must lie; with 0, any significant gain is enough."""
    alpha: float = Field(default=0.05, gt=0.0, le=0.5, json_schema_extra=COSMETIC)
    """Chance that a challenger that is no better is promoted, over all decisions on one held-out set together."""
    guards: Guards = Field(default=Guards(), json_schema_extra=COSMETIC)
    """Limits that no gain outweighs."""
    approval: Literal["required", "none"] = Field(default="none", json_schema_extra=COSMETIC)
    """``required``: a person confirms each promotion, by ``preflow decide`` where a deployment promotes, else by
    ``preflow promote RECIPE --by NAME --reason TEXT``."""

    @property
    def asks_judge(self) -> bool:
        """Whether a decision rests on a judge."""
        return self.primary in ("win_rate", "win_rate_lc") or self.guards.win_rate is not None

    @property
    def asks_people(self) -> bool:
        """Whether a decision rests on a human review."""
        return self.primary == "human_win_rate" or self.guards.human_win_rate is not None
