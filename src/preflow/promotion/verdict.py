"""The verdict on a challenger, from a paired comparison and guards; no model runs here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from preflow.config.evaluation.promotion import Guards, PromotionSettings
from preflow.maths.paired import PairedComparison
from preflow.maths.significance import holm, spent_alpha

Answer = Literal["promote", "refuse", "inconclusive"]
#: What guards look at, in the words of their messages.
_GUARDS = {
    "kl": "KL from the reference, nats per response",
    "length_ratio": "length of responses against the other model's",
    "perplexity_ratio": "perplexity against the other model's",
    "benchmark_margin": "largest loss in a benchmark that its interval allows",
    "win_rate": "lower bound of the win rate over the champion",
    "human_win_rate": "lower bound of the win rate over the champion that people gave",
}
#: The primary measure and its gain, in the words of a verdict.
_PRIMARY = {
    "preference_accuracy": "gain",
    "win_rate": "win rate {new:.3f}, above one half by",
    "human_win_rate": "win rate {new:.3f} in human review, above one half by",
    "win_rate_lc": "win rate {new:.3f} at equal length, above one half by",
}
#: What follows where the test and the gain have opposite signs.
_MIXED = (
    "the test counts prompts and the gain weights rows, and they speak for different models: some prompts have many "
    "more rows than others"
)
#: Guards whose measure must lie above the limit; that of the others must not exceed it.
_FLOORS = frozenset({"win_rate", "human_win_rate"})


@dataclass(frozen=True, slots=True)
class Guard:
    """One measure that must keep to a limit.

    Attributes:
        name: Its setting below ``promotion.guards``.
        value: What was measured; None where it could not be.
        limit: The setting.
    """

    name: str
    value: float | None
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the limit is kept; one that could not be measured breaks nothing."""
        if self.value is None:
            return True
        if self.name == "benchmark_margin":  # non-inferiority: the lower bound lies above minus the margin
            return self.value < self.limit
        return self.value > self.limit if self.name in _FLOORS else self.value <= self.limit

    def __str__(self) -> str:
        """What was measured and the limit, in one sentence."""
        if self.value is None:
            return f"guard {self.name}: not measured, as the run has nothing to measure it on"
        return f"guard {self.name}: {_GUARDS[self.name]} is {self.value:.3g}, limit {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for one challenger.

    Attributes:
        answer: Whether it may be promoted.
        reasons: Why, in sentences.
        p: The p value that was compared with the level, adjusted where there are several challengers.
    """

    answer: Answer
    reasons: tuple[str, ...]
    p: float


def guards_of(limits: Guards, measured: Mapping[str, float | None]) -> list[Guard]:
    """What was measured for each of a recipe's limits, of those for which a measure was asked for."""
    given = [(name, getattr(limits, name)) for name in _GUARDS if name in measured]
    return [Guard(name, measured[name], limit) for name, limit in given if limit is not None]


def judge(
    comparisons: Sequence[PairedComparison],
    guards: Sequence[Sequence[Guard]],
    settings: PromotionSettings,
    nth: int,
    level: float,
) -> list[Verdict]:
    """The verdict on each challenger; the p values of several pay for their number (Holm 1979).

    Args:
        comparisons: Each challenger against the champion, with intervals at ``level``.
        guards: Those of each challenger.
        settings: The recipe's.
        nth: How many decisions this held-out set has served, this one included.
        level: What this one may spend of ``settings.alpha``.
    """
    adjusted = holm([each.p for each in comparisons])
    return [
        _judge(each, own, settings, nth, level, p) for each, own, p in zip(comparisons, guards, adjusted, strict=True)
    ]


def best(verdicts: Sequence[Verdict], comparisons: Sequence[PairedComparison], *, one_reference: bool) -> int:
    """The challenger to decide on: of those that may be promoted, else of all, the one that does best.

    Args:
        verdicts: That on each challenger.
        comparisons: Each challenger with what it was compared with.
        one_reference: Whether that is one model, so that the largest gain is the best. Where each was compared with
            its own reference, a model that was trained from a bad one gains most: the measure itself counts.
    """
    may = [place for place, each in enumerate(verdicts) if each.answer == "promote"]

    def measure(place: int) -> float:
        return comparisons[place].difference.value if one_reference else comparisons[place].new

    return max(may or range(len(verdicts)), key=measure)


def _judge(
    found: PairedComparison, guards: Sequence[Guard], settings: PromotionSettings, nth: int, level: float, p: float
) -> Verdict:
    gain = found.difference
    what = _PRIMARY[settings.primary].format(new=found.new)
    test = (
        f"{what} {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] on {found.rows} held-out rows of "
        f"{found.prompts} prompts: {found.better} better, {found.worse} worse, {found.equal} equal; {found.test}, "
        f"p = {p:.3g}, level {level:.3g}, decision {nth} on these rows"
    )
    broken = [str(each) for each in guards if not each.holds]
    kept = [str(each) for each in guards if each.holds]
    if broken:
        return Verdict("refuse", (*broken, test, *kept), p)
    answer, why = _follows(found, settings, nth, level, p)
    return Verdict(answer, (*([why] if why else []), test, *kept), p)


def _follows(
    found: PairedComparison, settings: PromotionSettings, nth: int, level: float, p: float
) -> tuple[Answer, str]:
    """What the primary measure alone comes to, and why where that is not a promotion."""
    gain, margin = found.difference, settings.min_gain
    enough = margin == 0 or gain.low > margin
    if p <= level and found.is_mixed:
        return "inconclusive", _MIXED
    if p <= level and found.direction > 0 and enough:
        return "promote", ""
    if p <= level and found.direction < 0:
        return "refuse", "the challenger is worse than the champion"
    if margin > 0 and gain.high < margin:
        return "refuse", f"the gain lies below min_gain, {margin:g}"
    first = nth > 1 and p <= spent_alpha(settings.alpha, 1)
    if first and found.direction > 0 and not found.is_mixed and enough:
        return "refuse", (
            f"this held-out set has served {nth - 1} decisions before, so p has to be {level:.3g} or less: decide on "
            "new held-out rows"
        )
    return "inconclusive", _needed(found, margin)


def _needed(found: PairedComparison, margin: float) -> str:
    """How many prompts would decide, by the difference that was found."""
    gain = found.difference.value
    if gain <= margin or found.direction <= 0:
        return "no gain was found that more held-out prompts would confirm"
    count = round((found.prompts_to_decide or 0) * (gain / (gain - margin)) ** 2)
    if found.counts_prompts:
        count = max(count, math.ceil(_wins_needed(found.alpha) * found.prompts / found.better))
    count = max(count, found.prompts + 1)
    return f"about {count} held-out prompts would show a gain of this size; there are {found.prompts}"


def _wins_needed(level: float) -> int:
    """The fewest prompts that are significant in a sign test where all are better: ``2 / 2^n <= level``."""
    return math.ceil(1 - math.log2(level))
