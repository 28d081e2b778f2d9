"""What is reported of a running stage beside its progress."""

from typing import Any

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
