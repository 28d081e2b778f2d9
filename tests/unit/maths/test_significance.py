"""Expected values are derived by hand in each docstring."""

import numpy as np
import pytest
from scipy import stats

from preflow.maths.significance import (
    CLUSTERED_T_TEST,
    MCNEMAR,
    SIGN_TEST,
    holm,
    paired_significance,
    sign_test,
    spent_alpha,
)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (9, 1, 22 / 1024),  # 2 (1 + 10) / 2^10 = 0.0215
        (8, 2, 112 / 1024),  # 2 (1 + 10 + 45) / 2^10 = 0.1094
        (6, 0, 2 / 64),  # 0.03125
        (5, 0, 2 / 32),  # 0.0625: not significant
        (15, 2, 308 / 2**17),  # 2 (1 + 17 + 136) / 2^17 = 0.00235
        (3, 3, 1.0),  # 2 (1 + 6 + 15 + 20) / 64 exceeds 1
        (0, 0, 1.0),
    ],
)
def test_the_exact_sign_test_and_mcnemars_are_one_sum(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p)
    assert sign_test(worse, better) == pytest.approx(p)


def differences(better: int, worse: int, equal: int, size: float = 1.0) -> np.ndarray:
    return np.array([size] * better + [-size] * worse + [0.0] * equal)


def test_rows_that_are_right_or_wrong_are_tested_by_mcnemars_exact_test_however_many_they_are() -> None:
    for equal in (10, 210):
        found = paired_significance(differences(9, 1, equal), np.arange(10 + equal))
        assert (found.test, found.better, found.worse, found.equal) == (MCNEMAR, 9, 1, equal)
        assert found.p == pytest.approx(22 / 1024)


def test_twenty_prompts_with_fifteen_wins_and_two_losses() -> None:
    """A win rate of 0.825 against an even 0.5 for both: differences of one half, 308 / 2^17."""
    found = paired_significance(differences(15, 2, 3, 0.5), np.arange(20))
    assert found.test == SIGN_TEST
    assert found.p == pytest.approx(0.00235, abs=5e-6)


def test_few_prompts_are_tested_by_signs_though_their_differences_have_many_sizes() -> None:
    values = np.array([0.1, 5.0, 0.2, 3.0, 0.7, 0.4])
    found = paired_significance(values, np.arange(6))
    assert found.test == SIGN_TEST
    assert found.p == pytest.approx(0.03125)


def test_from_thirty_prompts_on_differences_of_many_sizes_have_the_paired_t_test() -> None:
    values = np.random.default_rng(5).normal(0.3, 1, 30)
    found = paired_significance(values, np.arange(30))
    assert found.test == CLUSTERED_T_TEST
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_rows_of_a_prompt_count_once() -> None:
    """Every prompt's rows doubled: the same p value; the signs are those of prompts."""
    values = np.random.default_rng(5).normal(0.3, 1, 30)
    once = paired_significance(values, np.arange(30))
    twice = paired_significance(np.repeat(values, 2), np.repeat(np.arange(30), 2))
    assert twice.p == pytest.approx(once.p)
    assert (twice.better, twice.worse, twice.equal) == (once.better, once.worse, once.equal)
    few = paired_significance(np.repeat(differences(6, 0, 0), 3), np.repeat(np.arange(6), 3))
    assert few.test == SIGN_TEST
    assert few.p == pytest.approx(0.03125)


def test_no_difference_at_all_is_no_finding() -> None:
    found = paired_significance(np.zeros(40), np.arange(40))
    assert (found.p, found.equal) == (1.0, 40)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got none"):
        paired_significance(np.array([]), np.array([], dtype=np.int64))


def test_holm_rejects_the_smallest_alone() -> None:
    """4 x .01 = .04; 3 x .02 = .06; 2 x .03 = .06; .04 is raised to .06: at 0.05 the first alone."""
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_decisions_on_one_held_out_set_pay_for_themselves() -> None:
    """0.05 / (k (k + 1)); over all decisions 1 - 1/(n + 1) of it, so never more than 0.05."""
    levels = [spent_alpha(0.05, decision) for decision in range(1, 6)]
    assert levels == pytest.approx([0.025, 0.05 / 6, 0.05 / 12, 0.0025, 0.05 / 30])
    assert sum(spent_alpha(0.05, decision) for decision in range(1, 1000)) == pytest.approx(0.05 * (1 - 1 / 1000))
    assert [sign_test(15, 2) <= level for level in levels] == [True, True, True, True, False]
    with pytest.raises(ValueError, match="got 0"):
        spent_alpha(0.05, 0)
