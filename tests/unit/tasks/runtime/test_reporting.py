"""What people see of a running stage: the time left, and what was asked of the log-prob store."""

import sys
from typing import Any

import pytest
from rich.console import Console

from tasks.runtime import reporting
from tasks.runtime.reporting import Reporter, TimeLeft, _Card

TALLY = {"scoring/rows_asked": 40.0, "scoring/rows_hit": 30.0, "scoring/rows_computed": 10.0}


def test_the_time_left_goes_by_the_pace_so_far() -> None:
    """3 rows in 6 seconds: the other 7 take 14. The first call measures nothing."""
    left = TimeLeft()
    assert left.after(1, 11, "rows", now=100.0) == ""
    assert left.after(4, 11, "rows", now=106.0) == ", 14 s left"
    assert left.after(11, 11, "rows", now=120.0) == ""
    assert left.after(1, 500, "steps", now=130.0) == ""
    assert left.after(2, 500, "steps", now=131.0) == ", 8 min 18 s left"


class Sink:
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, values: Any, step: int) -> None:
        self.values.update(values)


def test_what_scoring_found_goes_to_the_metrics_and_to_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[dict[str, Any]] = []
    monkeypatch.setattr(
        reporting, "create_table_artifact", lambda rows, **options: tables.append({"rows": rows, **options})
    )
    sink = Sink()
    reporter = Reporter("My Recipe", "reference", sink)
    reporter._card = _Card("My Recipe-reference")
    reporter.metrics({"dpo/loss": 0.5}, 3)
    assert tables == []
    reporter.metrics(TALLY, 0)
    assert sink.values == {"dpo/loss": 0.5, **TALLY}
    (table,) = tables
    assert table["key"] == "my-recipe-reference-scoring"
    assert {"measure": "scoring/rows_hit", "value": "30"} in table["rows"]
    assert len(table["rows"]) == 3


def test_a_log_file_gets_each_line_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "CONSOLE", Console(file=sys.stdout))
    with Reporter("My Recipe", "validate") as reporter:
        for done in (1, 2, 2, 2):
            reporter.progress(done, 2, "rows read")
        reporter.progress(2, 2, "rows judged")
    assert capsys.readouterr().out.splitlines() == ["  rows read 1/2", "  rows read 2/2", "  rows judged 2/2"]
