"""The interval of a difference where the bootstrap has nothing to resample."""

import itertools

import numpy as np
import pytest

from preflow.maths.intervals import bootstrap_mean, wilson
from preflow.maths.signed_shares import difference_interval, win_rate_interval

Z2 = 1.959964**2


def signed(better: int, worse: int, equal: int) -> np.ndarray:
    return np.array([1.0] * better + [-1.0] * worse + [0.0] * equal)


def test_documents_answered_alike_rule_no_loss_and_no_gain_out() -> None:
    """Wilson's of 0 in 24 ends at z^2 / (24 + z^2) = 0.138; every resample is 0."""
    values = signed(0, 0, 24)
    assert (bootstrap_mean(values).low, bootstrap_mean(values).high) == (0, 0)
    found = difference_interval(values)
    assert (found.low, found.high) == pytest.approx((-Z2 / (24 + Z2), Z2 / (24 + Z2)))


def test_without_ties_it_is_wilsons_interval() -> None:
    rate = win_rate_interval(np.array([1.0] * 12 + [0.0] * 8), 0.95, 100, 0, np.arange(20))
    expected = wilson(12, 20)
    assert (rate.value, rate.low, rate.high) == pytest.approx((0.6, expected.low, expected.high))


def test_one_won_prompt_says_little() -> None:
    """Wilson's of 1 in 1 begins at 1 / (1 + z^2)."""
    rate = win_rate_interval(np.ones(1), 0.95, 100, 0, np.arange(1))
    assert (rate.low, rate.high) == pytest.approx((1 / (1 + Z2), 1))


def test_less_is_never_safer() -> None:
    """A win that becomes a tie, and a tie that becomes a loss, lower both ends."""
    steps = [signed(20 - n, 0, n) for n in range(21)] + [signed(0, n, 20 - n) for n in range(21)]
    found = [difference_interval(each) for each in steps]
    for ends in ([each.low for each in found], [each.high for each in found]):
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(ends)), ends


def test_rows_of_one_cluster_are_one_observation() -> None:
    once, five = signed(0, 0, 24), np.zeros(120)
    assert difference_interval(five, clusters=np.repeat(np.arange(24), 5)) == difference_interval(once)


def test_many_differences_of_several_sizes_on_both_sides_are_resampled() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 60)
    assert difference_interval(values, samples=300, seed=3) == bootstrap_mean(values, samples=300, seed=3)


@pytest.mark.parametrize(("gain", "loss"), [(0.02, 0.02), (0.0, 0.05), (0.2, 0.2), (0.5, 0.5), (0.3, 0.4)])
def test_a_loss_is_ruled_out_wrongly_in_a_fortieth_of_cases(gain: float, loss: float) -> None:
    """Of 800 draws 2.5 % are 20, with a standard deviation of 4.4; 34 are more than 3 of them above."""
    rng = np.random.default_rng(0)
    draws = rng.choice([1.0, -1.0, 0.0], (800, 40), p=[gain, loss, 1 - gain - loss])
    wrong = sum(difference_interval(draw, samples=1).low > gain - loss for draw in draws)
    assert wrong <= 34
