"""Win rates by hand."""

import math

import numpy as np
import pytest

from preflow.maths.win_rate import BothOrders, fit_length, length_controlled, length_difference


def both(*pairs: tuple[float, float]) -> BothOrders:
    first, second = zip(*pairs, strict=True)
    return BothOrders(np.array(first), np.array(second))


def test_fifteen_wins_two_losses_and_three_verdicts_that_the_order_turns_around() -> None:
    """(15 + 3 / 2) / 20; 2 (1 + 17 + 136) / 2^17 = 0.00235."""
    judged = both(*[(1, 1)] * 15, *[(0, 0)] * 2, *[(1, 0)] * 3)
    assert judged.scores.mean() == pytest.approx(0.825)
    assert (judged.consistent(), judged.ties()) == ((15, 2), 0)
    assert judged.p() == pytest.approx(2 * (1 + 17 + 136) / 2**17)
    assert judged.consistency == pytest.approx(17 / 20)


def test_a_judge_that_always_says_the_first_gives_a_half_and_is_seen() -> None:
    judged = both(*[(1, 0)] * 8)
    assert judged.scores.mean() == 0.5
    assert judged.consistency == 0
    assert judged.first_share == 1
    assert judged.p() == 1


def test_a_judge_without_a_bias_of_position_says_first_half_the_time() -> None:
    assert both((1, 1), (0, 0)).first_share == 0.5
    assert both((0.5, 0.5)).first_share is None


def test_a_tie_in_both_orders_is_no_verdict_that_the_order_turns_around() -> None:
    """Scores are a half in each; a tie in one order alone is no tie."""
    judged = both((0.5, 0.5), (1, 0), (0, 1), (0.5, 0.5), (0.5, 1))
    assert judged.ties() == 2


def test_length_is_controlled_as_by_hand() -> None:
    """Longer: 80 of 100 won, so theta + g = ln 4; shorter: 50 of 100, so theta - g = 0; theta = g = ln 2."""
    lengths = np.array([1.0] * 100 + [-1.0] * 100)
    scores = np.array([1.0] * 80 + [0.0] * 20 + [1.0] * 50 + [0.0] * 50)
    fitted = fit_length(scores, lengths)
    assert fitted == pytest.approx((math.log(2), math.log(2)))
    found = length_controlled(scores, lengths, np.arange(200), 0.95, 200, 0)
    assert found.interval is not None
    assert found.interval.value == pytest.approx(2 / 3)
    assert found.interval.low < 2 / 3 < found.interval.high
    assert scores.mean() == pytest.approx(0.65)


def test_soft_labels_count_as_their_share() -> None:
    lengths = np.array([1.0, 1.0, -1.0, -1.0])
    assert fit_length(np.array([0.8, 0.8, 0.5, 0.5]), lengths) == pytest.approx((math.log(2), math.log(2)))


def test_a_judge_that_likes_length_alone_gives_a_half_at_equal_length() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(0.25, 0.3, 400), -0.9, 0.9)
    scores = (rng.random(400) < 1 / (1 + np.exp(-6 * lengths))).astype(float)
    found = length_controlled(scores, lengths, np.arange(400), 0.95, 300, 0)
    assert scores.mean() > 0.65
    assert found.interval is not None
    assert found.interval.low < 0.5 < found.interval.high


@pytest.mark.parametrize(
    ("scores", "lengths", "reason"),
    [
        ([1, 0] * 20, [0.3] * 40, "longer on 100%"),
        ([1] * 40, [0.3, -0.3] * 20, "no finite fit"),
        ([1, 0] * 20, [0.3, -0.3] * 20, "no finite fit"),
    ],
)
def test_where_length_cannot_be_told_apart_there_is_a_reason_and_no_number(
    scores: list[float], lengths: list[float], reason: str
) -> None:
    values = np.array(scores, dtype=float)
    found = length_controlled(values, np.array(lengths), np.arange(values.size), 0.95, 100, 0)
    assert found.interval is None
    assert reason in found.reason


def test_a_difference_of_lengths_is_a_share_of_their_sum() -> None:
    found = length_difference(np.array([30, 10, 0]), np.array([10, 30, 0]))
    assert found.tolist() == [0.5, -0.5, 0.0]
