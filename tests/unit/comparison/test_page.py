"""The page holds what the report says, escaped, and needs nothing else."""

import re
from dataclasses import replace

from preflow.comparison.kept_run import KeptRun, flat
from preflow.comparison.page import cell, page, scatter
from preflow.comparison.report import compare_runs
from tests.unit.comparison.planted_runs import kept_run


def planted() -> list[KeptRun]:
    return [
        kept_run("a", "1" * 75 + "0" * 25, rate=2e-5, kl=2.5),
        kept_run("c", "1" * 62 + "0" * 38, rate=1e-5, kl=1.5),
        kept_run("base", "1" * 60 + "0" * 40, rate=5e-6, kl=0.5),
    ]


def test_the_page_needs_no_other_file_and_escapes_what_rows_say() -> None:
    text = page(compare_runs(planted(), "base"), "demo")
    assert not re.search(r"(src|href)=|https?://|@import", text)
    assert "Where is my &lt;parcel&gt;?" in text
    assert "<parcel>" not in text


def test_the_page_has_differences_groups_settings_measures_and_answers() -> None:
    text = page(compare_runs(planted(), "base"), "demo")
    assert "+15.0 [+" in text
    assert '<span class="good">better</span>' in text
    assert "not told apart" in text
    assert "dpo.learning_rate" in text
    assert "dpo.beta" not in text
    assert "0.750 [0.700, 0.800]" in text
    assert "It is on its way, says c. <small>9 tokens, cut</small>" in text
    assert text.count("<svg") == 3


def test_the_page_says_who_judged_what_people_said_and_what_was_decided() -> None:
    """A fit judge, an unfit one, and none; the limit of the KL, kept at 1.5 and broken at 2.5."""
    share = {"value": 0.825, "low": 0.7, "high": 0.9}
    test = {"fit": True, "accuracy": share, "pairs": 40, "reason": ""}
    fit = {"judge": {"kind": "endpoint", "model": "m-7"}, "test": test, "models": ["dpo", "sft"], "win_rate": share}
    unfit = {**fit, "test": {**test, "fit": False, "reason": "it agrees too seldom"}, "win_rate": None}
    tasks = {"tone": {"metric": "acc", "documents": 12, "models": {"sft": share, "dpo": {**share, "value": 0.75}}}}
    first, second, third = planted()
    runs = [
        replace(first, judge={**fit, "win_rate_lc_reason": "always longer"}, benchmarks=tasks),
        replace(second, judge=unfit, later=("Decision 1, 2026-11-30: version 1 promoted",)),
        third,
    ]
    runs = [replace(run, settings={**run.settings, "promotion.guards.kl": "2"}) for run in runs]
    report = compare_runs(runs, "base")
    text = page(report, "demo")
    for shown in (
        "0.825 [0.700, 0.900] (dpo over sft)",
        "none: always longer",
        "none: it agrees too seldom",
        "unfit: agrees with people on 0.825 [0.700, 0.900] of 40 pairs",
        "endpoint m-7",
        "0.750 [0.700, 0.900] acc, 12 documents",
        "2.5, limit 2: broken",
        "1.5, limit 2<",
        "Decision 1, 2026-11-30: version 1 promoted",
    ):
        assert shown in text, shown
    assert report["runs"][2]["judged"] is None
    assert "Judge, people" not in page(compare_runs(planted(), "base"), "demo"), "nothing was said"


def test_a_run_that_is_left_out_is_named_with_its_reason() -> None:
    runs = [*planted(), kept_run("other", "1" * 100, prefix="x")]
    assert "Left out: demo-other. the two models share no held-out row" in page(compare_runs(runs, "base"), "demo")


def test_a_scatter_of_one_run_is_not_drawn() -> None:
    assert scatter({"A": (1.0, 0.5, 0.4, 0.6)}, "x", "y", "t") is None


def test_points_are_within_their_figure() -> None:
    figure = scatter({"A": (1.0, 0.5, 0.4, 0.6), "B": (9.0, 0.7, 0.69, 0.71)}, "x", "y", "t")
    assert figure is not None
    assert figure["points"], "there is something to draw"
    for point in figure["points"]:
        assert figure["left"] <= point["x"] <= figure["right"]
        assert 0 <= point["high"] <= point["y"] <= point["low"] <= figure["bottom"]


def test_measures_are_written_with_what_is_known_of_their_error() -> None:
    assert cell({"value": 0.5, "low": 0.4, "high": 0.6}) == "0.500 [0.400, 0.600]"
    assert cell({"value": 1.5, "se": 0.25}) == "1.500 ± 0.250"
    assert cell(12.345) == "12.3"
    assert cell(None) == ""


def test_settings_are_flat_and_text() -> None:
    assert flat({"dpo": {"beta": 0.1, "loss_type": ["sigmoid"]}, "slot": None}) == {
        "dpo.beta": "0.1",
        "dpo.loss_type": "sigmoid",
        "slot": "none",
    }


def test_only_significant_differences_are_marked_in_the_forest_plot() -> None:
    """75 of 100 rows against 60 is 15 to 0; 62 against 60 is 2 to 0."""
    text = page(compare_runs(planted(), "base"), "demo")
    assert text.count('class="bar clear"') == 1


def test_a_run_that_is_worse_on_most_prompts_and_better_on_most_rows_is_neither() -> None:
    """Twelve prompts of one row lost, one of 20 rows won: +25.0 points, and 1 of 13 prompts is better."""

    def run(run_id: str, right: str) -> KeptRun:
        made = kept_run(run_id, right)
        many = [{**row, "cluster": "many"} if place >= 12 else row for place, row in enumerate(made.pairs)]
        return replace(made, pairs=many)

    report = compare_runs([run("new", "0" * 12 + "1" * 20), run("old", "1" * 12 + "0" * 20)], "old")
    found = report["runs"][0]["difference"]
    assert (found["better"], found["worse"], found["significant"], found["verdict"]) == (1, 12, True, "mixed")
    text = page(report, "demo")
    assert "+25.0 [" in text
    assert "mixed <small>" in text
    assert not re.search(r'class="(good|bad)">(better|worse)', text)
    assert [run["difference"]["verdict"] for run in compare_runs(planted(), "base")["runs"][:2]] == [
        *("better", "not told apart")
    ]
    worse = compare_runs(planted(), "a")["runs"][2]["difference"]
    assert worse["verdict"] == "worse"
