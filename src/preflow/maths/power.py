"""What a number of prompts can show: the power of a paired comparison, by the normal approximation."""

import math
from statistics import NormalDist

#: Of a win rate, or of a share, at one half without ties: the largest that a number between 0 and 1 can have.
WIDEST = 0.5


def visible_difference(prompts: int, sd: float = WIDEST, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference that a two-sided test at ``alpha`` finds with probability ``power``.

    ``(z_{1 - alpha/2} + z_power) sd / sqrt(n)``.

    Args:
        prompts: n, independent observations.
        sd: Standard deviation of a prompt's difference.
        alpha: Level of the test.
        power: Probability of finding the difference.

    Raises:
        ValueError: ``prompts`` is not positive.
    """
    if prompts <= 0:
        raise ValueError(f"visible_difference needs at least one prompt, got {prompts}")
    return _quantiles(alpha, power) * sd / math.sqrt(prompts)


def prompts_needed(difference: float, sd: float = WIDEST, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many prompts show a difference with probability ``power``: the inverse of ``visible_difference``.

    Raises:
        ValueError: ``difference`` is zero, which no number of prompts shows.
    """
    if difference == 0:
        raise ValueError("prompts_needed needs a difference other than 0")
    return max(1, math.ceil((_quantiles(alpha, power) * sd / difference) ** 2))


def paired_sd(discordant: float, difference: float) -> float:
    """Standard deviation of the difference of two shares on the same rows.

    ``sqrt(discordant - difference^2)``.

    Args:
        discordant: Share of rows on which the two models differ.
        difference: Difference of the two shares.
    """
    return math.sqrt(discordant - difference**2)


def _quantiles(alpha: float, power: float) -> float:
    return NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
