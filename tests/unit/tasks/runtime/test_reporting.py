"""What is reported of a running stage beside its progress."""

import threading
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tasks.runtime import reporting
from tasks.runtime.reporting import Reporter, _ProgressArtifact

TALLY = {"scoring/rows_asked": 40.0, "scoring/rows_hit": 30.0, "scoring/rows_computed": 10.0}


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
    reporter._artifact = _ProgressArtifact("My Recipe-reference")
    reporter.metrics({"dpo/loss": 0.5}, 3)
    assert tables == []
    reporter.metrics(TALLY, 0)
    assert sink.values == {"dpo/loss": 0.5, **TALLY}
    (table,) = tables
    assert table["key"] == "my-recipe-reference-scoring"
    assert {"measure": "scoring/rows_hit", "value": "30"} in table["rows"]
    assert len(table["rows"]) == 3


class Progress:
    """What Prefect is sent of a stage's progress; it answers when it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[float, str]] = []
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.error: Exception | None = None
        monkeypatch.setattr(reporting, "create_progress_artifact", self._create)
        monkeypatch.setattr(reporting, "update_progress_artifact", self._update)
        monkeypatch.setattr(reporting, "_ARTIFACT_SECONDS", 0.0)

    def _create(self, percent: float, *, key: str, description: str) -> Any:
        self.asked.set()
        assert self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        self._update(None, percent, description=description)
        return uuid4()

    def _update(self, artifact: Any, percent: float, *, description: str) -> None:
        self.sent.append((percent, description))


def test_a_stage_does_not_wait_for_prefect_and_the_newest_progress_is_shown_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefect, shown = Progress(monkeypatch), _ProgressArtifact("tiny-sft")
    shown.show(1, 4, "steps")
    assert prefect.asked.wait(30)
    for step in (2, 3, 4):  # while Prefect does not answer
        shown.show(step, 4, "steps")
    prefect.may_answer.set()
    shown.close()
    assert [percent for percent, _ in prefect.sent] == [25.0, 100.0]
    assert prefect.sent[-1][1].startswith("steps 4/4")


def test_progress_that_cannot_be_shown_ends_no_stage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prefect, shown = Progress(monkeypatch), _ProgressArtifact("tiny-sft")
    prefect.error = httpx.ConnectError("refused")
    prefect.may_answer.set()
    shown.show(1, 2, "steps")
    shown.close()
    assert "progress could not be shown in Prefect: refused" in caplog.text
    prefect.error = None
    shown.show(2, 2, "steps")
    shown.close()
    assert [percent for percent, _ in prefect.sent] == [100.0]
