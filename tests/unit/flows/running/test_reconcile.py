"""Which waiting runs of a schedule are skipped."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.running.reconcile import superseded

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)


def run(minutes: int, **changes: Any) -> FlowRun:
    """A run that its schedule made for so many minutes from now."""
    start = {"expected_start_time": NOW + timedelta(minutes=minutes)}
    given = {"flow_id": uuid4(), "auto_scheduled": True, "parameters": {"recipe": "demo"}}
    return FlowRun.model_validate({**given, **start, **changes})


def test_of_the_firings_that_wait_the_latest_stays() -> None:
    late = [run(-90), run(-60), run(-30)]
    assert superseded([late[2], late[0], late[1]], NOW) == late[:2]


@pytest.mark.parametrize(
    "other",
    [
        run(60),
        run(-60, auto_scheduled=False),
        run(-60, run_count=1),
        run(-60, parameters={"recipe": "demo", "overrides": {"dpo.beta": 0.3}}),
    ],
    ids=["not due", "asked for", "handed back", "of another schedule"],
)
def test_other_runs_stay(other: FlowRun) -> None:
    assert superseded([run(-30), other], NOW) == []
