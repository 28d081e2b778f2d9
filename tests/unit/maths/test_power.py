"""z_.975 + z_.80 = 1.959964 + 0.841621 = 2.801585, whose square is 7.848880: all values follow by hand."""

import math

import pytest

from preflow.maths.power import paired_sd, prompts_needed, visible_difference


@pytest.mark.parametrize(
    ("difference", "variance", "prompts"),
    [
        (0.05, 0.25, 785),  # 7.848880 x 0.25 / 0.0025 = 784.9
        (0.05, 0.175, 550),  # 30 % ties: 549.4
        (0.05, 0.125, 393),  # half of them ties: 392.4
        (0.10, 0.25, 197),  # 196.2
        (0.03, 0.25, 2181),  # 2180.2
    ],
)
def test_prompts_that_show_a_difference(difference: float, variance: float, prompts: int) -> None:
    assert prompts_needed(difference, math.sqrt(variance)) == prompts
    assert prompts_needed(-difference, math.sqrt(variance)) == prompts


@pytest.mark.parametrize(("discordant", "pairs"), [(0.2, 621), (0.3, 935), (0.4, 1248)])
def test_pairs_that_show_five_points_of_accuracy(discordant: float, pairs: int) -> None:
    """7.848880 x (0.2 - 0.0025) / 0.0025 = 620.06; 934.02; 1247.97."""
    assert prompts_needed(0.05, paired_sd(discordant, 0.05)) == pairs


def test_220_prompts_show_differences_of_9_4_points() -> None:
    """2.801585 x 0.5 / sqrt(220) = 0.09444; with half ties, sd sqrt(1/8): 0.06678."""
    assert visible_difference(220) == pytest.approx(0.09444, abs=5e-6)
    assert visible_difference(220, math.sqrt(0.125)) == pytest.approx(0.06678, abs=5e-6)


def test_a_smaller_level_needs_more_prompts() -> None:
    """At 0.025: z = 2.241403, (2.241403 + 0.841621)^2 x 0.25 / 0.0025 = 950.5."""
    assert prompts_needed(0.05, alpha=0.025) == 951


def test_what_has_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt, got 0"):
        visible_difference(0)
    with pytest.raises(ValueError, match="other than 0"):
        prompts_needed(0.0)
