"""A worker is stopped in mid-training and another is started: the run goes on from a checkpoint and ends."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Pipeline
from tests.integration.servers.test_deployment import PREFLOW, preflow, running, server

__all__ = ["server"]  # a fixture
PATIENCE = 500
WORKER = [*PREFLOW, "worker", "--pool", "preflow-pool"]


def flow_run(environment: dict[str, str]) -> dict[str, Any]:
    answer = httpx.post(f"{environment['PREFECT_API_URL']}/flow_runs/filter", json={}, timeout=30)
    (found,) = answer.raise_for_status().json()
    return dict(found)


def wait_for(what: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.server
def test_a_stopped_worker_hands_its_run_back_and_the_next_ends_it(
    pipeline: Pipeline, server: dict[str, str], tiny_recipe_file: Callable[..., Path]
) -> None:
    recipe = tiny_recipe_file()
    preflow(server, "deploy", str(recipe))
    preflow(server, "submit", str(recipe), "--set", "sft.max_steps=100")
    log = pipeline.folder / "worker.log"
    checkpoints = pipeline.home / "store" / "sft"
    with running(WORKER, server, log) as first:
        wait_for(lambda: any(checkpoints.glob("*/scratch/checkpoint-*")), log)
        os.kill(first.pid, signal.SIGTERM)
        assert first.wait(90) == 0, log.read_text()[-3000:]
    assert flow_run(server)["state"]["name"] == "AwaitingRetry"
    again = pipeline.folder / "again.log"
    with running(WORKER, server, again):
        wait_for(lambda: flow_run(server)["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), again)
        ended = flow_run(server)
    assert (ended["state"]["type"], ended["run_count"]) == ("COMPLETED", 2), again.read_text()[-3000:]
    (parent,) = [run for run in pipeline.runs() if run.data.tags.get("kind") == "pipeline"]
    assert {run.info.status for run in pipeline.runs()} == {"FINISHED"}
    (sft,) = [run for run in pipeline.runs() if run.data.tags.get("stage") == "sft"]
    assert sft.data.tags["mlflow.parentRunId"] == parent.info.run_id
    steps = pipeline.steps(sft.info.run_id, "sft/loss")
    assert sorted(steps) == sorted(set(steps)), "no step twice"
    running_still = httpx.post(
        f"{server['PREFECT_API_URL']}/task_runs/filter",
        json={"task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}},
        timeout=30,
    )
    assert running_still.json() == []
