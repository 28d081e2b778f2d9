"""Rounding is kept apart from other weights, whatever the response's length and probability."""

import math

import pytest
import torch

from preflow.maths.agreement import LIMITS, Agreement, agree, sums_agree, token_distance


def test_a_short_answer_after_a_long_prompt_agrees() -> None:
    """Five tokens, -3.362321 nats against -3.362379: 1.2e-5 a token, more than 1e-5 of sum and tokens."""
    stored = [-3.362379 / 5] * 5
    got = [-3.362321 / 5] * 5
    assert abs(sum(got) - sum(stored)) > 1e-5 * 5
    assert agree(got, stored)
    assert sums_agree(-3.362321, -3.362379, 5)


def test_an_error_of_one_direction_over_a_hundred_tokens_agrees() -> None:
    """-150.618995 against -150.620701: 1.7e-5 for each of a hundred tokens."""
    assert sums_agree(-150.618995, -150.620701, 100)


def test_a_distance_is_a_root_mean_square() -> None:
    """Differences 3 and 4: the root of (9 + 16) / 2; signs do not cancel."""
    assert token_distance([3.0, 0.0], torch.tensor([0.0, 4.0])) == pytest.approx(math.sqrt(12.5))
    assert token_distance([1.0, -1.0], [0.0, 0.0]) == 1


def test_one_wrong_response_among_thousands_is_seen() -> None:
    agreement = Agreement(torch.float32)
    for _ in range(5000):
        agreement.add([-1.0] * 4, [-1.0] * 4)
    agreement.add([-1.0] * 4, [-1.01] * 4)
    assert agreement.overall < LIMITS[torch.float32].all_rows
    assert agreement.limits_used == pytest.approx(0.01 / 2e-3)


def test_a_little_on_every_row_is_seen() -> None:
    """6e-4 nats a token: within the limit of a response, beyond that of all."""
    agreement = Agreement(torch.float32)
    for _ in range(3):
        agreement.add([-1.0] * 4, [-1.0006] * 4)
    assert agreement.response_limits_used < 1
    assert agreement.limits_used == pytest.approx(6e-4 / 5e-4)


def test_a_value_that_is_no_number_never_agrees() -> None:
    agreement = Agreement(torch.bfloat16)
    agreement.add([math.nan], [0.0])
    agreement.add([0.0], [0.0])
    assert math.isnan(agreement.limits_used)
    assert not agree([math.nan], [0.0])


def test_responses_of_other_lengths_are_not_compared() -> None:
    with pytest.raises(ValueError, match="expected as many of both"):
        token_distance([0.0], [0.0, 0.0])
