"""Two models on the rows that both were measured on; expected values by hand."""

import numpy as np
import pytest

from preflow.errors import IncomparableError
from preflow.maths.paired import RowScores, compare_paired


def scores(values: dict[str, float]) -> RowScores:
    """Rows named ``prompt/number``; those of one prompt are one cluster."""
    return RowScores(list(values), [name.split("/")[0] for name in values], np.array(list(values.values())))


def outcomes(new: str, old: str) -> tuple[RowScores, RowScores]:
    """One row per prompt, right (1) or wrong (0)."""
    new_side, old_side = ({f"{i}/0": float(mark) for i, mark in enumerate(marks)} for marks in (new, old))
    return scores(new_side), scores(old_side)


def test_discordant_rows_decide() -> None:
    """Nine rows right in the new model alone, one in the old alone, ten in both: 0.95 against 0.55, p = 22/1024."""
    found = compare_paired(*outcomes("1" * 9 + "0" + "1" * 10, "0" * 9 + "1" + "1" * 10))
    assert (found.rows, found.prompts, found.better, found.worse, found.equal) == (20, 20, 9, 1, 10)
    assert (found.new, found.old, found.difference.value) == pytest.approx((0.95, 0.55, 0.4))
    assert found.p == pytest.approx(22 / 1024)
    assert found.difference.low < 0.4 < found.difference.high


def test_prompts_that_would_decide_follow_from_the_difference_found() -> None:
    """12 to 8 of 100 rows: difference 0.04, variance 0.2 - 0.0016 = 0.1984: 7.848880 x 0.1984 / 0.0016 = 973.3."""
    found = compare_paired(*outcomes("1" * 12 + "0" * 88, "0" * 12 + "1" * 8 + "0" * 80))
    assert found.p == pytest.approx(0.503, abs=5e-4)
    assert found.prompts_to_decide == 974
    assert found.visible == pytest.approx((7.848880 * 0.1984 / 100) ** 0.5, rel=1e-6)


def test_a_model_and_itself_differ_by_zero() -> None:
    same, _ = outcomes("110100", "110100")
    found = compare_paired(same, same)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p) == (0, 0, 0, 1)
    assert found.visible is None
    assert found.prompts_to_decide is None


def test_only_shared_rows_count_and_their_shares_are_said() -> None:
    new = scores({"a/0": 1.0, "b/0": 1.0, "c/0": 0.0})
    old = scores({"b/0": 0.0, "c/0": 0.0, "d/0": 1.0, "e/0": 1.0})
    found = compare_paired(new, old)
    assert (found.rows, found.old_share) == (2, 0.5)
    assert found.new_share == pytest.approx(2 / 3)
    assert found.difference.value == 0.5
    found.require_shared(0.5)
    with pytest.raises(IncomparableError, match="share 2 held-out rows, 67% of the one's and 50% of the other's"):
        found.require_shared(0.9)


def test_models_without_a_shared_row_cannot_be_compared() -> None:
    with pytest.raises(IncomparableError, match="no held-out row: 1 of the one, 2 of the other"):
        compare_paired(scores({"a/0": 1.0}), scores({"b/0": 1.0, "c/0": 1.0}))


def test_rows_of_one_prompt_are_one_observation() -> None:
    """Two prompts of three rows each, better in all six rows: 2 prompts better, p = 2 / 4."""
    new = scores({f"{prompt}/{row}": 1.0 for prompt in "ab" for row in range(3)})
    old = scores({f"{prompt}/{row}": 0.0 for prompt in "ab" for row in range(3)})
    found = compare_paired(new, old)
    assert (found.rows, found.prompts, found.better, found.p) == (6, 2, 2, 0.5)


def test_the_order_of_rows_does_not_matter_and_swapping_the_models_changes_signs_alone() -> None:
    rng = np.random.default_rng(1)
    named = {f"{i % 40}/{i}": float(v) for i, v in enumerate(rng.normal(size=80))}
    other = {name: value + 0.2 * rng.normal() for name, value in named.items()}
    found = compare_paired(scores(named), scores(other))
    assert compare_paired(scores(dict(reversed(named.items()))), scores(other)) == found
    swapped = compare_paired(scores(other), scores(named))
    assert (swapped.better, swapped.worse) == (found.worse, found.better)
    assert swapped.p == pytest.approx(found.p)
    assert swapped.difference.low == pytest.approx(-found.difference.high)


def test_a_row_that_is_listed_twice_counts_once() -> None:
    once = scores({"a/0": 1.0, "b/0": 0.0})
    twice = RowScores([*once.ids, "a/0"], [*once.clusters, "a"], np.array([1.0, 0.0, 1.0]))
    found = compare_paired(twice, once)
    assert (found.rows, found.new_share) == (2, 1.0)
