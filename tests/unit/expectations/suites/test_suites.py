"""The suites find what they name, in every row, and their results hold no text."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expectations.suites import demonstrations, preferences
from expectations.suites.running import as_result, run_suite
from preflow.config.validation import ValidationSettings
from preflow.data.quality.rows.ingest import PROBLEMS
from preflow.findings import FINDINGS, FORM

SETTINGS = ValidationSettings()
FINE: dict[str, Any] = {
    "problem": 0,
    "control_characters": False,
    "mojibake": False,
    "repeats_prompt": False,
    "duplicate_row": False,
    "in_benchmark": False,
    "text_too_long": 100,
    "near_copy": np.nan,
    "near_duplicate": np.nan,
    "identical_answers": False,
    "no_clear_winner": False,
    "contradiction": False,
    "preference_cycle": False,
    "too_similar": np.nan,
    "same_in_other_words": np.nan,
    "wins_everywhere": 0,
    "scores_inverted": False,
    "scores_tie": False,
    "conflicting_completions": False,
}
#: A value that fails each finding of a pair, and one at the edge that does not.
BAD: dict[str, tuple[Any, Any]] = {
    **{name: (True, False) for name, value in FINE.items() if value is False and name != "conflicting_completions"},
    "text_too_long": (200_001, 200_000),
    "near_copy": (0.99, 0.98),
    "near_duplicate": (0.93, 0.92),
    "too_similar": (0.95, 0.94),
    "same_in_other_words": (0.64, 0.63),
    "wins_everywhere": (10, 9),
}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{**FINE, **row} for row in rows])


def failing(*rows: dict[str, Any], settings: ValidationSettings = SETTINGS) -> dict[str, list[int]]:
    outcome = run_suite([frame(*rows)], preferences.rows_suite(settings))
    return {name: at.tolist() for name, at in outcome.failing.items()}


@pytest.mark.slow
def test_clean_rows_pass() -> None:
    for suite in (preferences.rows_suite(SETTINGS), demonstrations.rows_suite(SETTINGS)):
        outcome = run_suite([frame({}, {})], suite)
        assert outcome.failing == {}
        assert as_result("x", [outcome], {})["success"] is True


@pytest.mark.slow
def test_every_finding_of_form_has_an_expectation_that_names_its_rows() -> None:
    rows = [{"problem": PROBLEMS.index(finding)} for finding in FORM]
    count = len(rows)
    assert failing(*rows, {}, *rows) == {finding: [at, count + 1 + at] for at, finding in enumerate(FORM)}


@pytest.mark.slow
def test_every_finding_of_a_row_has_an_expectation_with_its_threshold() -> None:
    """One value that fails and one at the edge that does not, each in a row of its own, among fine rows."""
    rows = [{finding: value} for finding, (bad, edge) in BAD.items() for value in (edge, bad, FINE[finding], bad)]
    assert failing(*rows) == {finding: [4 * at + 1, 4 * at + 3] for at, finding in enumerate(BAD)}


@pytest.mark.slow
@pytest.mark.parametrize("finding", ["too_similar", "contradiction"])
def test_a_finding_that_is_switched_off_is_not_looked_for(finding: str) -> None:
    settings = ValidationSettings(severity={finding: "off"})
    assert failing({finding: BAD[finding][0]}, settings=settings) == {}


@pytest.mark.slow
def test_thresholds_come_from_the_recipe() -> None:
    settings = ValidationSettings(too_similar=0.8, wins_everywhere_prompts=3)
    assert failing({"too_similar": 0.85}, {"wins_everywhere": 3}, settings=settings) == {
        "too_similar": [0],
        "wins_everywhere": [1],
    }


@pytest.mark.slow
def test_rows_are_named_without_a_cap_and_across_frames() -> None:
    bad = {"identical_answers": True}
    first, second = frame(*[bad] * 500), frame({}, *[bad] * 3)
    second.index += 500
    outcome = run_suite([first, second], preferences.rows_suite(SETTINGS))
    assert outcome.failing["identical_answers"].tolist() == [*range(500), 501, 502, 503]
    result = next(r for r in outcome.results if r["expectation_config"]["meta"]["finding"] == "identical_answers")
    assert result["success"] is False
    assert (result["result"]["unexpected_count"], result["result"]["element_count"]) == (503, 504)


@pytest.mark.parametrize(("rows", "minimum", "fails"), [(0, 1, True), (2, 3, True), (3, 3, False)])
def test_too_few_rows_fail_and_an_empty_set_most_of_all(rows: int, minimum: int, fails: bool) -> None:
    names = (
        "too_few_rows",
        "fewer_rows_than_recommended",
        "few_prompts",
        "dominant_prompt",
        "dominant_source",
        "low_diversity",
    )
    line = pd.DataFrame({**{name: [np.nan] for name in names}, "too_few_rows": [float(rows)]})
    outcome = run_suite([line], demonstrations.set_suite(ValidationSettings(minimum_rows=minimum)))
    assert list(outcome.failing) == (["too_few_rows"] if fails else [])


@pytest.mark.slow
def test_a_missing_column_of_the_frame_is_an_error_and_never_a_pass() -> None:
    with pytest.raises(RuntimeError, match="Great Expectations failed"):
        run_suite([frame({}).drop(columns="duplicate_row")], demonstrations.rows_suite(SETTINGS))


@pytest.mark.slow
def test_results_are_the_same_each_time_and_name_severity_and_setting() -> None:
    rows = [frame({"too_similar": 0.99}, {})]
    first, second = (run_suite(rows, preferences.rows_suite(SETTINGS)).results for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    meta = [result["expectation_config"]["meta"] for result in first]
    assert all(entry["severity"] == FINDINGS[entry["finding"]].severity for entry in meta)
    assert {"finding": "too_similar", "severity": "warn", "setting": "too_similar"} in meta


def test_running_a_suite_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    run_suite([frame({})], demonstrations.rows_suite(SETTINGS))
    assert capfd.readouterr() == ("", "")
