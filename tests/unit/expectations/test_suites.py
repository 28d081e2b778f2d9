"""The suites find what they name, in every row, and their results hold no text."""

import json

import pandas as pd
import pytest

from expectations import demonstrations, preferences
from expectations.suites import run_suite
from preflow.config import ValidationSettings
from preflow.data.conversion import ROW_FINDINGS
from preflow.data.rows import Source

Fact = tuple[str, str | None, bool | None]
FINE: Fact = ("fine", "k", False)


def frame(*facts: Fact) -> pd.DataFrame:
    rows = [("f.jsonl", number, *fact) for number, fact in enumerate(facts, 1)]
    return pd.DataFrame(rows, columns=["file", "row", "problem", "key", "same_answers"], dtype=object)


def at(*rows: int) -> list[Source]:
    return [Source("f.jsonl", row) for row in rows]


def test_clean_rows_pass() -> None:
    outcome = run_suite(frame(FINE, ("fine", "l", False)), preferences.suite(ValidationSettings()))
    assert (outcome.failing, outcome.failed_sets, outcome.result["success"]) == ({}, [], True)


@pytest.mark.parametrize("finding", ROW_FINDINGS)
def test_every_row_finding_has_an_expectation_that_names_its_rows(finding: str) -> None:
    bad: Fact = (finding, None, None)
    outcome = run_suite(frame(bad, FINE, bad), preferences.suite(ValidationSettings()))
    assert outcome.failing == {finding: at(1, 3)}
    assert outcome.result["success"] is False


def test_identical_answers_and_duplicates_are_named_without_a_cap() -> None:
    facts = [FINE, *[("fine", str(number), True) for number in range(500)], FINE]
    outcome = run_suite(frame(*facts), preferences.suite(ValidationSettings()))
    assert outcome.failing == {"identical_answers": at(*range(2, 502)), "duplicate_row": at(1, 502)}


@pytest.mark.parametrize(("rows", "minimum", "fails"), [(0, 1, True), (2, 3, True), (3, 3, False)])
def test_too_few_rows_fail_and_an_empty_frame_most_of_all(rows: int, minimum: int, fails: bool) -> None:
    facts: list[Fact] = [("fine", str(number), False) for number in range(rows)]
    outcome = run_suite(frame(*facts), demonstrations.suite(ValidationSettings(minimum_rows=minimum)))
    assert outcome.failed_sets == (["too_few_rows"] if fails else [])


def test_a_missing_column_of_the_frame_is_an_error_and_never_a_pass() -> None:
    with pytest.raises(RuntimeError, match="Great Expectations failed"):
        run_suite(frame(FINE).drop(columns="key"), demonstrations.suite(ValidationSettings()))


def test_results_are_the_same_each_time_and_hold_no_values() -> None:
    facts = frame(("fine", "secret", False), ("fine", "secret", False))
    first, second = (run_suite(facts, demonstrations.suite(ValidationSettings())).result for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert "secret" not in json.dumps(first)


def test_running_a_suite_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    run_suite(frame(FINE), demonstrations.suite(ValidationSettings()))
    assert capfd.readouterr() == ("", "")
