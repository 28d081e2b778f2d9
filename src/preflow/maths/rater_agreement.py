"""Agreement of people beyond chance, on categories without an order."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """How far raters agree.

    Attributes:
        measure: ``kappa`` for two raters of the same units, else ``alpha``.
        value: 1 is perfect, 0 is chance; None where it is not defined: no unit has two ratings, or all are the same.
        observed: Share of pairs of ratings of one unit that agree; None without one.
        units: Units with two ratings or more.
    """

    measure: Literal["kappa", "alpha"]
    value: float | None
    observed: float | None
    units: int

    def is_below(self, least: float) -> bool:
        """Whether there is an agreement and it is too low; raters who all say the same do not disagree."""
        return self.value is not None and self.value < least


def rater_agreement(ratings: Sequence[Sequence[Hashable | None]]) -> RaterAgreement:
    """Cohen's kappa for two raters without gaps, else Krippendorff's alpha.

    Args:
        ratings: For each of N units the category that each of R raters gave it; None where one gave none.
    """
    complete = bool(ratings) and all(len(unit) == 2 and None not in unit for unit in ratings)
    return cohen_kappa(ratings) if complete else krippendorff_alpha(ratings)


def cohen_kappa(ratings: Sequence[Sequence[Hashable | None]]) -> RaterAgreement:
    """Cohen's kappa (1960, doi:10.1177/001316446002000104): ``(p_o - p_e) / (1 - p_e)``.

    ``p_e`` is the agreement of two raters who keep their own shares of each category and rate at random.

    Args:
        ratings: For each of N units, N > 0, the categories that two raters gave it.
    """
    count = len(ratings)
    observed = sum(first == second for first, second in ratings) / count
    first, second = (Counter(unit[rater] for unit in ratings) for rater in (0, 1))
    expected = sum(first[category] * second[category] for category in first) / count**2
    value = None if expected == 1 else (observed - expected) / (1 - expected)
    return RaterAgreement("kappa", value, observed, count)


def krippendorff_alpha(ratings: Sequence[Sequence[Hashable | None]]) -> RaterAgreement:
    """Krippendorff's alpha for nominal data, any number of raters, and gaps (Hayes and Krippendorff 2007).

    ``1 - D_o / D_e`` with the coincidences ``o_ck`` (doi:10.1080/19312450709336664): every ordered pair of ratings of
    one unit counts ``1 / (m - 1)``, where m is the number of its ratings. Units with one rating say nothing.

    Args:
        ratings: For each of N units the category that each rater gave it; None where one gave none.
    """
    units = [[each for each in unit if each is not None] for unit in ratings]
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        return RaterAgreement("alpha", None, None, 0)
    pooled = Counter(each for unit in units for each in unit)
    total = pooled.total()
    agreeing = sum(sum(count * (count - 1) for count in Counter(unit).values()) / (len(unit) - 1) for unit in units)
    observed = agreeing / total
    expected = sum(count * (count - 1) for count in pooled.values()) / (total * (total - 1))
    value = None if expected == 1 else 1 - (1 - observed) / (1 - expected)
    return RaterAgreement("alpha", value, observed, len(units))
