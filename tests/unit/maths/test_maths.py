"""Expected values are derived by hand in each docstring."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preflow.maths.divergence import kl_divergence
from preflow.maths.intervals import bootstrap_mean, standard_error, wilson
from preflow.maths.logprobs import token_logprobs
from preflow.maths.preference import implicit_reward


def test_token_logprobs_of_known_distributions() -> None:
    """Logits (0, ln 3) are probabilities (1/4, 3/4); equal logits over 4 tokens are 1/4 each."""
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
    values = token_logprobs(logits, torch.tensor([1, 0]))
    assert values.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 2)], abs=1e-7)


def test_masked_positions_give_zero_even_for_broken_logits() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [float("inf"), float("-inf")], [0.0, 0.0]])
    mask = torch.tensor([False, False, True])
    values = token_logprobs(logits, torch.tensor([-100, 1, 0]), mask)
    assert values[:2].tolist() == [0.0, 0.0]
    assert values.double().sum().item() == pytest.approx(math.log(0.5), abs=1e-7)


def test_a_fully_masked_row_sums_to_zero_not_nan() -> None:
    values = token_logprobs(torch.full((3, 4), float("nan")), torch.zeros(3, dtype=torch.long), torch.zeros(3).bool())
    assert values.double().sum().item() == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 40))
def test_sum_equals_a_float64_loop_over_tokens(seed: int, length: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(length, vocabulary, generator=generator)
    targets = torch.randint(0, vocabulary, (length,), generator=generator)
    expected = 0.0
    for t in range(length):
        row = [float(x) for x in logits[t].double()]
        top = max(row)
        expected += row[int(targets[t])] - top - math.log(sum(math.exp(x - top) for x in row))
    got = token_logprobs(logits, targets).double().sum().item()
    assert abs(got - expected) <= 1e-5 * max(abs(expected), length)


def test_bfloat16_logits_are_widened() -> None:
    """1/4 against 3/4 again: bfloat16 arithmetic alone would be off by about 1e-2."""
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.bfloat16)
    exact = float(logits[0, 1]) - math.log(1 + math.exp(float(logits[0, 1])))
    assert token_logprobs(logits, torch.tensor([1])).item() == pytest.approx(exact, abs=1e-6)


def test_implicit_reward_is_beta_times_the_log_ratio() -> None:
    assert implicit_reward(torch.tensor([-1.0]), torch.tensor([-3.0]), 0.5).item() == pytest.approx(1.0)


def test_kl_of_two_categorical_models_in_closed_form() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)."""
    p, q = torch.log(torch.tensor([0.5, 0.5])), torch.log(torch.tensor([0.25, 0.75]))
    assert kl_divergence(p, q).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)
    assert kl_divergence(p + 7, q - 3).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-5)


def test_kl_with_an_impossible_token_is_finite() -> None:
    """KL((1, 0) || (1/2, 1/2)) = ln 2: the token that the policy never picks adds 0 log 0 = 0."""
    p, q = torch.tensor([0.0, float("-inf")]), torch.tensor([0.0, 0.0])
    assert kl_divergence(p, q).item() == pytest.approx(math.log(2), abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_kl_is_not_negative_and_zero_for_equal_models(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(5, 17, generator=generator), torch.randn(5, 17, generator=generator)
    assert (kl_divergence(p, q) > -1e-6).all()
    assert kl_divergence(p, p).abs().max() == 0


def test_wilson_interval_of_a_textbook_case() -> None:
    """8 of 10 at 95 %: z = 1.959964, centre (0.8 + z²/20)/(1 + z²/10) = 0.71672, half width 0.22656."""
    interval = wilson(8, 10)
    assert interval.value == 0.8
    assert (interval.low, interval.high) == pytest.approx((0.49016, 0.94332), abs=2e-5)


def test_wilson_stays_inside_zero_and_one() -> None:
    """0 of n: low 0, high z²/(n + z²) = 3.841459/13.841459 for n = 10."""
    assert wilson(0, 10).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(0, 10).high == pytest.approx(3.841459 / 13.841459, abs=1e-6)
    assert wilson(10, 10).high == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


@pytest.mark.slow
def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 200 samples of 60 normal numbers, a 90 % interval should miss the mean in about 20; 6 to 42 at 4.5 sigma."""
    rng = np.random.default_rng(1)
    intervals = [bootstrap_mean(rng.normal(3, 2, 60), 0.9, 300, seed) for seed in range(200)]
    misses = sum(not interval.low <= 3 <= interval.high for interval in intervals)
    assert 6 <= misses <= 42


def test_bootstrap_of_constant_values_has_no_width() -> None:
    interval = bootstrap_mean(np.full(20, 0.25))
    assert (interval.low, interval.value, interval.high) == (0.25, 0.25, 0.25)


def test_bootstrap_needs_values() -> None:
    with pytest.raises(ValueError, match="got none"):
        bootstrap_mean(np.array([]))


def test_standard_error_by_hand() -> None:
    """1, 2, 3: sample variance 1, so 1/sqrt(3); a single value has none."""
    assert standard_error(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / math.sqrt(3))
    with pytest.raises(ValueError, match="at least two values, got 1"):
        standard_error(np.array([5.0]))
