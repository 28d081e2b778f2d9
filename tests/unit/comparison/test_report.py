"""Planted rows whose differences, p values and groups are worked out by hand."""

from dataclasses import replace

import pytest

from preflow.comparison.report import compare_runs
from preflow.errors import IncomparableError
from tests.unit.comparison.planted_runs import kept_run

#: 100 rows, of which the baseline is right on 60.
BASE = "1" * 60 + "0" * 40


def changed(better: int, worse: int) -> str:
    """The baseline's rows, with so many of its wrong ones right, and of its right ones wrong."""
    return "0" * worse + "1" * (60 - worse) + "1" * better + "0" * (40 - better)


def test_differences_and_their_adjusted_p_values_by_hand() -> None:
    """McNemar exact: 15/2 -> 308/2^17 = 0.002350; 9/1 -> 22/1024 = 0.02148; 8/2 -> 112/1024 = 0.1094.

    Holm over three: x 3, x 2, x 1: 0.00705, 0.04297, 0.1094.
    """
    runs = [kept_run("base", BASE)]
    runs += [kept_run(name, changed(*counts)) for name, counts in (("a", (15, 2)), ("b", (9, 1)), ("c", (8, 2)))]
    report = compare_runs(runs, "base")
    found = {run["run_id"]: run["difference"] for run in report["runs"]}
    assert found["base"] is None
    expected = {"a": (15, 2, 0.13, 3 * 308 / 2**17), "b": (9, 1, 0.08, 44 / 1024), "c": (8, 2, 0.06, 112 / 1024)}
    for name, (better, worse, value, p) in expected.items():
        assert (found[name]["better"], found[name]["worse"]) == (better, worse)
        assert found[name]["difference"]["value"] == pytest.approx(value)
        assert found[name]["adjusted_p"] == pytest.approx(p)
    assert [found[name]["significant"] for name in "abc"] == [True, True, False]


def test_two_identical_runs_differ_by_nothing_and_are_one_group() -> None:
    report = compare_runs([kept_run("new", BASE), kept_run("old", BASE)], "old")
    difference = report["runs"][0]["difference"]
    assert difference["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert difference["adjusted_p"] == 1.0
    assert report["groups"] == [["new", "old"]]
    assert report["settings"] == []


def test_a_run_may_be_in_two_groups_that_differ() -> None:
    """Best against worst 8 to 0: p = 2/256, times 3. The middle differs from either by 4 rows: p = 2/16."""
    best, middle, worst = ("1" * right + "0" * (100 - right) for right in (18, 14, 10))
    report = compare_runs([kept_run("best", best), kept_run("middle", middle), kept_run("worst", worst)], "best")
    assert report["groups"] == [["best", "middle"], ["middle", "worst"]]
    assert [run["groups"] for run in report["runs"]] == [[0], [0, 1], [1]]


def test_runs_on_other_data_are_refused_with_both_digests() -> None:
    here, elsewhere = kept_run("here", BASE), kept_run("there", BASE, prefix="x")
    with pytest.raises(IncomparableError) as raised:
        compare_runs([here, elsewhere], "here", strict=True)
    for run in (here, elsewhere):
        assert run.held_out_digest[:12] in raised.value.message
    assert here.held_out_digest != elsewhere.held_out_digest
    with pytest.raises(IncomparableError, match="no run can be compared with demo-here"):
        compare_runs([here, elsewhere], "here")


def test_runs_that_share_most_rows_are_compared_on_these_and_others_are_left_out_by_name() -> None:
    """Of 100 rows 95 are shared, which is enough; 80 are not."""
    base = kept_run("base", BASE)
    most = replace(kept_run("most", BASE), pairs=kept_run("most", BASE).pairs[:95])
    fewer = replace(kept_run("fewer", BASE), pairs=kept_run("fewer", BASE).pairs[:80])
    report = compare_runs([fewer, most, base], "base")
    assert [run["run_id"] for run in report["runs"]] == ["most", "base"]
    difference = report["runs"][0]["difference"]
    assert (difference["rows"], difference["new_share"], difference["old_share"]) == (95, 1.0, 0.95)
    (left_out,) = report["left_out"]
    assert left_out["name"] == "demo-fewer"
    assert "share 80 held-out rows, 100% of the one's and 80% of the other's" in left_out["reason"]


def test_rows_are_found_by_content_wherever_they_are() -> None:
    moved = kept_run("moved", changed(9, 1))
    shuffled = replace(moved, pairs=moved.pairs[::-1])
    plain, again = (compare_runs([kept_run("base", BASE), run], "base") for run in (moved, shuffled))
    assert plain["runs"][1]["difference"] == again["runs"][1]["difference"]


def test_only_settings_that_differ_are_shown() -> None:
    report = compare_runs([kept_run("a", BASE, rate=1e-5), kept_run("b", BASE, rate=2e-5)], "a")
    assert report["settings"] == ["dpo.learning_rate"]
    shown = [run["settings"] for run in report["runs"]]
    assert shown == [{"dpo.learning_rate": "1e-05"}, {"dpo.learning_rate": "2e-05"}]


def test_answers_to_the_same_prompt_are_side_by_side() -> None:
    (shown,) = compare_runs([kept_run("a", BASE), kept_run("c", BASE)], "a")["answers"]
    assert shown["prompt"] == "Where is my <parcel>?"
    assert {run: answer["finished"] for run, answer in shown["answers"].items()} == {"a": True, "c": False}
