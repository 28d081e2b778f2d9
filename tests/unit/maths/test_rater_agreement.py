"""Kappa and alpha against hand-derived values, and against scikit-learn's kappa."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflow.maths.rater_agreement import RaterAgreement, cohen_kappa, krippendorff_alpha, rater_agreement


def units(table: list[list[int]]) -> list[tuple[str, str]]:
    """The ratings behind a 2 x 2 table: rows are the first rater's, columns the second's."""
    names = "ab"
    return [(names[i], names[j]) for i in (0, 1) for j in (0, 1) for _ in range(table[i][j])]


def test_kappa_of_the_textbook_table() -> None:
    """p_o = 35 / 50 = 0.7; p_e = (25 * 30 + 25 * 20) / 2500 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    found = rater_agreement(units([[20, 5], [10, 15]]))
    assert (found.measure, found.units) == ("kappa", 50)
    assert found.value == pytest.approx(0.4)
    assert found.observed == pytest.approx(0.7)


def test_alpha_with_a_gap_by_hand() -> None:
    """Units aa, ab, bb, and b with a gap, which says nothing: 6 ratings, 3 of each category.

    Observed: 2 + 0 + 2 agreeing of 6 ordered pairs, 2/3. Expected: (3 * 2 + 3 * 2) / (6 * 5) = 0.4.
    Alpha = 1 - (1/3) / 0.6 = 4/9.
    """
    found = rater_agreement([("a", "a"), ("a", "b"), ("b", "b"), ("b", None)])
    assert (found.measure, found.units) == ("alpha", 3)
    assert found.value == pytest.approx(4 / 9)


def test_alpha_of_three_raters_by_hand() -> None:
    """Units aab and bbb: agreeing (2 * 1) / 2 + (3 * 2) / 2 = 4 of 6. Expected: (2 * 1 + 4 * 3) / 30 = 7/15.

    Alpha = 1 - (1/3) / (8/15) = 3/8.
    """
    assert rater_agreement([("a", "a", "b"), ("b", "b", "b")]).value == pytest.approx(3 / 8)


def test_raters_who_always_say_the_same_have_no_agreement_beyond_chance_and_are_not_below_it() -> None:
    for found in (cohen_kappa([("a", "a")] * 3), krippendorff_alpha([("a", "a", "a")] * 3)):
        assert (found.value, found.observed) == (None, 1)
        assert not found.is_below(0.9)


def test_one_rater_alone_has_no_agreement() -> None:
    assert rater_agreement([("a",), ("b",)]) == RaterAgreement("alpha", None, None, 0)


def test_below_means_below() -> None:
    found = cohen_kappa(units([[20, 5], [10, 15]]))
    assert (found.is_below(0.39), found.is_below(0.41)) == (False, True)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=30))
def test_kappa_is_that_of_scikit_learn(ratings: list[tuple[str, str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    found = cohen_kappa(ratings).value
    if found is not None:
        assert found == pytest.approx(metrics.cohen_kappa_score(*zip(*ratings, strict=True)))
