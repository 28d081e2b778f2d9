"""Deployments, for real: a server, a worker, ``prefect deploy`` and a watched run on a tiny model; then a schedule.

Whether a schedule fires depends on versions that must agree (Prefect's scheduler fails silently under SQLAlchemy 2.1),
so the test starts what is installed, and nothing but the server can have made the run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.ports import free_port
from tests.integration.conftest import ROOT, Pipeline, clean_environment

#: Seconds between two firings, and the longest wait for the first scheduled run to end.
INTERVAL, PATIENCE = 10, 500
PREFECT = [sys.executable, "-m", "prefect"]
PREFLOW = [sys.executable, "-m", "flows.commands.app"]


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A long-running command in a process group of its own, which ends with the block."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def server(pipeline: Pipeline) -> Iterator[dict[str, str]]:
    """The environment in which commands talk to a Prefect server of this test's own."""
    port = free_port()
    environment = {
        **clean_environment(),
        "PREFLOW_HOME": str(pipeline.home),
        "PREFECT_HOME": str(pipeline.home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    (pipeline.home / "prefect").mkdir(parents=True, exist_ok=True)
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, environment, pipeline.folder / "server.log"):
        _wait_for(f"http://127.0.0.1:{port}/api/health")
        yield environment


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not answer")


def prefect(environment: dict[str, str], *arguments: str) -> str:
    return _said(environment, [*PREFECT, *arguments])


def preflow(environment: dict[str, str], *arguments: str) -> str:
    return _said(environment, [*PREFLOW, *arguments])


def _said(environment: dict[str, str], command: list[str]) -> str:
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.server
def test_a_deployment_runs_with_other_settings_and_a_schedule_fires(
    pipeline: Pipeline, server: dict[str, str], tiny_recipe_file: Callable[..., Path], subtests: pytest.Subtests
) -> None:
    """The scheduled run asks for what the run before it made: it is all cached."""
    recipe = tiny_recipe_file()
    prefect(server, "work-pool", "create", "preflow-pool", "--type", "process")
    prefect(server, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    stored = prefect(server, "deployment", "inspect", "two-stage/nightly-demo", "--output", "json")
    assert str(ROOT) not in stored
    assert json.loads(stored)["entrypoint"] == "flows.two_stage.two_stage"

    worker = [*PREFECT, "worker", "start", "--pool", "preflow-pool", "--limit", "1"]
    log = pipeline.folder / "worker.log"
    with running(worker, server, log):
        watched = prefect(
            server,
            *("deployment", "run", "two-stage/nightly-demo", "--watch"),
            *("--param", f"recipe={recipe}", "--param", 'overrides={"dpo.beta": 0.2}'),
        )
        with subtests.test("a deployment runs with other settings"):
            assert "finished successfully" in watched, watched + log.read_text()
            (parent,) = [run for run in pipeline.runs() if run.data.tags.get("kind") == "pipeline"]
            assert parent.info.status == "FINISHED"
            assert parent.data.params["beta"] == "0.2"
            kinds = {a["key"] for a in _artifacts(server)}
            assert {"tiny-summary", "tiny-metrics", "tiny-mlflow", "tiny-dpo"} <= kinds
        with subtests.test("a schedule fires"):
            preflow(server, "deploy", str(recipe), "--every", f"{INTERVAL}s", "--set", "dpo.beta=0.2")
            ended = _first_scheduled_that_ended(server)
            server_log = (pipeline.folder / "server.log").read_text()
            assert ended is not None, (
                f"no scheduled run ended within {PATIENCE} s\n{server_log[-3000:]}\n{log.read_text()[-3000:]}"
            )
            assert ended["state"]["type"] == "COMPLETED", ended["state"]
            assert ended["parameters"]["overrides"] == {"dpo.beta": "0.2"}, "as --set gives it"
            assert ended["name"].startswith("tiny-beta0.2-")


def _post(environment: dict[str, str], path: str, body: Any) -> Any:
    answer = httpx.post(f"{environment['PREFECT_API_URL']}/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _artifacts(server: dict[str, str]) -> list[dict[str, str]]:
    answer = httpx.post(f"{server['PREFECT_API_URL']}/artifacts/filter", json={}, timeout=30)
    answer.raise_for_status()
    found: list[dict[str, str]] = answer.json()
    return found


def _first_scheduled_that_ended(environment: dict[str, str]) -> dict[str, Any] | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for run in _post(environment, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "limit": 100}):
            if run["auto_scheduled"] and run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"):
                found: dict[str, Any] = run
                return found
        time.sleep(2)
    return None
