"""A schedule fires, for real: a server makes the runs by itself, a worker runs them, and they end.

Whether it does depends on versions that must agree (Prefect's scheduler fails silently under SQLAlchemy 2.1), so the
test starts what is installed, and nothing but the server can have made the run.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Pipeline
from tests.integration.test_deployment import PREFECT, preflow, running, server

__all__ = ["server"]  # a fixture

#: Seconds between two firings, and the longest wait for the first scheduled run to end.
INTERVAL, PATIENCE = 10, 500


def _post(environment: dict[str, str], path: str, body: Any) -> Any:
    answer = httpx.post(f"{environment['PREFECT_API_URL']}/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


@pytest.mark.slow
@pytest.mark.server
def test_a_schedule_makes_runs_that_a_worker_runs_to_their_end(
    pipeline: Pipeline,
    server: dict[str, str],
    tiny_recipe_file: Callable[..., Path],
) -> None:
    recipe = tiny_recipe_file()
    preflow(server, "deploy", str(recipe), "--every", f"{INTERVAL}s", "--set", "dpo.beta=0.2")

    log = pipeline.folder / "worker.log"
    with running([*PREFECT, "worker", "start", "--pool", "preflow-pool", "--limit", "1"], server, log):
        ended = _first_that_ended(server)
    server_log = (pipeline.folder / "server.log").read_text()
    assert ended is not None, (
        f"no scheduled run ended within {PATIENCE} s\n{server_log[-3000:]}\n{log.read_text()[-3000:]}"
    )
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    assert ended["auto_scheduled"], "the run was made by something else than the scheduler"
    assert ended["parameters"]["overrides"] == {"dpo.beta": "0.2"}, "as --set gives it: the recipe reads it as YAML"
    assert ended["name"].startswith("tiny-beta0.2-")


def _first_that_ended(environment: dict[str, str]) -> dict[str, Any] | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for run in _post(environment, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "limit": 100}):
            if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"):
                found: dict[str, Any] = run
                return found
        time.sleep(2)
    return None
