"""``preflow serve``, for real: both servers and a worker come up, a training is handed back, and nothing is left."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.services import wait_until
from tests.fixtures.ports import free_port
from tests.integration.conftest import Pipeline, clean_environment
from tests.integration.servers.commands import PREFLOW, preflow, running

_PATIENCE = 500.0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Serving:
    """A running ``preflow serve``, what it printed, its ports, and the environment that it told to use."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ports: tuple[int, int, int]
    client: dict[str, str]


@pytest.fixture
def training(pipeline: Pipeline, tiny_recipe_file: Callable[..., Path]) -> Iterator[Serving]:
    """It serves, and its worker trains."""
    mlflow, prefect, worker = ports = free_port(), free_port(), free_port()
    log = pipeline.folder / "serve.log"
    own = {
        **clean_environment(),
        "PREFLOW_HOME": str(pipeline.home),
        "PREFECT_HOME": str(pipeline.home / "prefect"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [*PREFLOW, "serve", "--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    with running([*command, "--worker-port", str(worker)], own, log) as process:
        wait_until(lambda: "Ctrl-C stops" in log.read_text(), _PATIENCE, f"see {log}")
        (printed,) = [line for line in log.read_text().splitlines() if "export PREFECT_API_URL" in line]
        client = {**own, **dict(each.split("=") for each in printed.split()[1:])}
        recipe = tiny_recipe_file()
        preflow(client, "deploy", str(recipe))
        preflow(client, "submit", str(recipe), "--set", "sft.max_steps=200")
        checkpoints = pipeline.home / "store" / "sft"
        wait_until(lambda: any(checkpoints.glob("*/scratch/checkpoint-*")), _PATIENCE, f"see {log}")
        yield Serving(process, log, ports, client)


@pytest.mark.nightly  # each time, tests/faults hand a run back, and unit tests end supervised processes in order
@pytest.mark.server
def test_both_servers_and_the_worker_end_in_order_with_their_training_handed_back(
    pipeline: Pipeline, training: Serving
) -> None:
    mlflow, prefect, _ = training.ports
    assert training.client["PREFECT_API_URL"] == f"http://127.0.0.1:{prefect}/api"
    assert training.client["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{mlflow}"
    assert httpx.get(f"{training.client['PREFECT_API_URL']}/admin/version", timeout=30).status_code == 401
    page = httpx.get(f"http://127.0.0.1:{prefect}/dashboard", timeout=30, headers={"Accept": "text/html"})
    assert "<title>Prefect Server</title>" in page.text
    os.kill(training.process.pid, signal.SIGINT)
    assert training.process.wait(120) == 0, training.log.read_text()[-3000:]
    printed = training.log.read_text()
    assert "handing 1 runs back" in printed
    assert printed.endswith("stopped\n")
    assert not any(map(listens, training.ports))
    with sqlite3.connect(pipeline.home / "prefect" / "prefect.db") as database:
        states = database.execute("select state_name from flow_run").fetchall()
    assert states == [("AwaitingRetry",)], "the next worker goes on with it"
