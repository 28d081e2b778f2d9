"""Win rates of a challenger over the champion: numbers derived by hand, and what cannot be estimated."""

import math
from typing import Any

import numpy as np
import pytest

from preflow.config.evaluation.promotion import PromotionSettings
from preflow.errors import PromotionError
from preflow.maths.paired import PairedComparison
from preflow.maths.significance import SIGN_TEST, spent_alpha
from preflow.promotion.verdict import judge
from preflow.promotion.win_rates import BOOTSTRAP_TEST, PromptScores, win_rate, win_rate_at_equal_length

OPTIONS: dict[str, Any] = {"alpha": 0.05, "samples": 500, "seed": 0}


def scores(values: list[float], lengths: list[float] | None = None) -> PromptScores:
    names = [str(place) for place in range(len(values))]
    return PromptScores(names, names, np.array(values), np.array(lengths or [0.0] * len(values)))


def fifteen_to_two(level: float = 0.05) -> PairedComparison:
    """15 wins, 2 losses, 3 verdicts that the order turns around."""
    return win_rate(scores([1.0] * 15 + [0.0] * 2 + [0.5] * 3), alpha=level, samples=200, seed=0)


def test_fifteen_wins_two_losses_and_three_flips_are_a_win_rate_of_0825() -> None:
    """(15 + 3 / 2) / 20 = 0.825; p = 2 (1 + 17 + 136) / 2^17."""
    found = fifteen_to_two()
    assert found.new == pytest.approx(0.825)
    assert found.difference.value == pytest.approx(0.325)
    assert (found.better, found.worse, found.equal) == (15, 2, 3)
    assert found.test == SIGN_TEST
    assert found.p == pytest.approx(308 / 131072)


@pytest.mark.parametrize(("nth", "answer"), [(1, "promote"), (4, "promote"), (5, "refuse")])
def test_the_fifth_look_at_one_held_out_set_is_refused(nth: int, answer: str) -> None:
    level = spent_alpha(0.05, nth)
    settings = PromotionSettings.model_validate({"primary": "win_rate"})
    (found,) = judge([fifteen_to_two(level)], [[]], settings, nth, level)
    assert found.answer == answer
    if answer == "promote":
        assert found.reasons[0].startswith("win rate 0.825, above one half by +0.325 [")


def test_a_win_rate_at_equal_length_is_that_of_the_hand_derived_fit() -> None:
    """Of 100 prompts each: 80 wins where x = 1, 50 where x = -1, so theta = g = ln 2 and the rate 2 / 3; raw 0.65."""
    values = [1.0] * 80 + [0.0] * 20 + [1.0] * 50 + [0.0] * 50
    found = win_rate_at_equal_length(scores(values, [1.0] * 100 + [-1.0] * 100), **OPTIONS)
    assert found.new == pytest.approx(2 / 3)
    assert found.difference.value == pytest.approx(2 / 3 - 0.5)
    assert found.difference.low > 0
    assert found.test == BOOTSTRAP_TEST
    assert found.p < 0.05
    assert (found.better, found.worse) == (130, 70)


def test_a_judge_that_likes_length_alone_gives_no_gain_at_equal_length() -> None:
    """P(win) = 1 / (1 + exp(-4 x)): the challenger is longer, wins by it, and is no better."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.normal(0.25, 0.3, 220), -0.9, 0.9)
    values = (rng.random(220) < 1 / (1 + np.exp(-4 * lengths))).astype(float)
    found = scores(values.tolist(), lengths.tolist())
    assert win_rate(found, **OPTIONS).p < 0.001
    at_length = win_rate_at_equal_length(found, **OPTIONS)
    assert at_length.p > 0.05
    assert at_length.difference.low < 0 < at_length.difference.high
    assert at_length.prompts_to_decide is None or at_length.prompts_to_decide > 220


@pytest.mark.parametrize(
    ("count", "lengths", "why"),
    [
        (20, [1.0, -1.0], "rests on 20 prompts"),
        (60, [0.5, 0.5], "there is no win rate at equal length: longer on 100%"),
    ],
)
def test_what_cannot_be_estimated_is_refused_with_its_reason(count: int, lengths: list[float], why: str) -> None:
    values = [float(place % 3 > 0) for place in range(count)]
    with pytest.raises(PromotionError, match=why):
        win_rate_at_equal_length(scores(values, lengths * (count // 2)), **OPTIONS)
    assert math.isfinite(win_rate(scores(values), **OPTIONS).p)
