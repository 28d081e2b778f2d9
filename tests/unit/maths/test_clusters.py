"""Expected values are derived by hand in each docstring."""

import math

import numpy as np
import pytest

from preflow.maths.clusters import cluster_bootstrap, cluster_numbers, clustered_standard_error
from preflow.maths.intervals import bootstrap_mean, share_interval, standard_error, wilson

SCORES = np.array([1, 1, 0, 0, 1, 0], dtype=np.float64)
#: Three prompts of two rows each.
IN_TWOS = np.array([0, 0, 1, 1, 2, 2])


def test_clusters_are_counted_in_order_of_first_appearance() -> None:
    assert cluster_numbers(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_the_clustered_standard_error_adds_up_a_prompts_deviations_first() -> None:
    """Mean 1/2: the prompts deviate by 1, -1 and 0, so sqrt(2)/6 = 0.2357; row by row it is sqrt(6/4)/6 = 0.2041."""
    assert clustered_standard_error(SCORES, IN_TWOS) == pytest.approx(math.sqrt(2) / 6)
    assert clustered_standard_error(SCORES, np.arange(6)) == pytest.approx(math.sqrt(1.5) / 6)


def test_the_standard_error_of_rows_in_clusters_is_that_of_prompts() -> None:
    """0.2357 x sqrt(3/2) = 1/sqrt(12), which is the spread of the prompts' means 1, 0, 1/2 over sqrt(3)."""
    assert standard_error(SCORES, IN_TWOS) == pytest.approx(1 / math.sqrt(12))
    assert standard_error(np.array([1.0, 0.0, 0.5])) == pytest.approx(1 / math.sqrt(12))
    assert standard_error(SCORES, np.arange(6)) == standard_error(SCORES)


def test_one_cluster_says_nothing_of_a_spread() -> None:
    with pytest.raises(ValueError, match="two clusters, got 1"):
        clustered_standard_error(SCORES, np.zeros(6, dtype=np.int64))


def test_whole_prompts_are_resampled() -> None:
    """Rows 0 and 2 are one prompt, row 1 another: a resample of two prompts holds both or none of rows 0 and 2."""
    seen = set()

    def note(rows: np.ndarray) -> float:
        seen.add(tuple(sorted(rows.tolist())))
        return 0.0

    cluster_bootstrap(note, cluster_numbers(["a", "b", "a"]), samples=50, seed=0)
    assert seen == {(0, 1, 2), (0, 0, 2, 2), (1, 1)}


def test_a_statistic_is_computed_anew_on_each_resample() -> None:
    """A ratio of sums is not the mean of ratios: one resample of one prompt gives the ratio of all its rows."""
    over, under = np.array([1.0, 3.0]), np.array([1.0, 1.0])
    found = cluster_bootstrap(lambda rows: float(over[rows].sum() / under[rows].sum()), np.zeros(2, np.int64), 3, 0)
    assert found.tolist() == [2.0, 2.0, 2.0]


def test_prompts_of_one_row_each_are_resampled_as_rows_always_were() -> None:
    """The bootstrap over rows, written down again."""
    values = np.random.default_rng(3).normal(size=41)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(0, 41, 41)].mean() for _ in range(200)]
    low, high = np.quantile(means, [0.05, 0.95])
    for clusters in (None, np.arange(41)):
        found = bootstrap_mean(values, 0.9, 200, 7, clusters)
        assert (found.value, found.low, found.high) == (values.mean(), low, high)


def test_rows_of_one_prompt_that_agree_widen_the_interval() -> None:
    """Every row twice is no new evidence: the interval is that of the prompts, not one narrower by sqrt(2)."""
    values = np.random.default_rng(0).normal(size=60)
    once = bootstrap_mean(values, samples=400)
    twice = bootstrap_mean(np.tile(values, 2), samples=400, clusters=np.tile(np.arange(60), 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    naive = bootstrap_mean(np.tile(values, 2), samples=400)
    assert naive.high - naive.low < 0.85 * (once.high - once.low)


def test_a_share_has_wilsons_interval_where_every_prompt_has_one_row() -> None:
    right = np.array([True] * 60 + [False] * 40)
    assert share_interval(right, np.arange(100)) == wilson(60, 100)


def test_a_share_of_rows_in_clusters_is_resampled_by_prompts() -> None:
    """Of 50 prompts 30 are right in both rows: as wide as 30 of 50, not as 60 of 100."""
    right = np.repeat(np.arange(50) < 30, 2)
    found = share_interval(right, np.repeat(np.arange(50), 2), samples=2000)
    few, many = wilson(30, 50), wilson(60, 100)
    assert found.value == 0.6
    assert found.high - found.low == pytest.approx(few.high - few.low, rel=0.08)
    assert found.high - found.low > 1.25 * (many.high - many.low)


@pytest.mark.parametrize("all_right", [True, False])
def test_a_share_of_none_or_all_has_the_interval_of_as_many_trials_as_prompts(all_right: bool) -> None:
    right = np.full(20, all_right)
    assert share_interval(right, np.repeat(np.arange(10), 2)) == wilson(10 if all_right else 0, 10)


@pytest.mark.nightly
def test_clusters_keep_false_alarms_near_the_level_that_rows_exceed() -> None:
    """40 prompts of 5 answers that mostly agree, no effect: row by row about one interval in five excludes zero."""
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(40), 5)
    alarms = {"clustered": 0, "naive": 0}
    for run in range(200):
        values = np.repeat(rng.normal(size=40), 5) * 0.7 + rng.normal(size=200)
        for name, given in (("clustered", clusters), ("naive", None)):
            found = bootstrap_mean(values, samples=200, seed=run, clusters=given)
            alarms[name] += not found.low <= 0 <= found.high
    assert alarms["clustered"] <= 22
    assert alarms["naive"] >= 25
