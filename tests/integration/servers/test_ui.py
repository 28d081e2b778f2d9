"""``python -m flows.ui``: both pages answer on loopback, and nothing is left behind when it ends, however it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.ports import free_port
from tests.integration.conftest import ROOT, Pipeline, clean_environment
from tests.integration.servers.commands import running

PATIENCE = 120


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def page(url: str) -> str:
    """What a browser is given."""
    return httpx.get(url, timeout=30, headers={"Accept": "text/html"}).raise_for_status().text


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def ui(pipeline: Pipeline, ports: tuple[int, int]) -> Iterator[subprocess.Popen[bytes]]:
    mlflow, prefect = ports
    homes = {"PREFLOW_HOME": str(pipeline.home), "PREFECT_HOME": str(pipeline.home / "prefect")}
    environment = {**clean_environment(), **homes}
    command = [sys.executable, "-m", "flows.ui", "--no-browser"]
    command += ["--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    with running(command, environment, pipeline.folder / "ui.log") as process:
        yield process


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.nightly)])
def test_both_pages_open_and_end_with_the_command(
    ui: subprocess.Popen[bytes], ports: tuple[int, int], pipeline: Pipeline, end: signal.Signals
) -> None:
    mlflow, prefect = ports
    log = pipeline.folder / "ui.log"
    until(lambda: "Ctrl-C stops" in log.read_text(), "the servers came up")
    assert f"http://127.0.0.1:{mlflow}" in log.read_text()
    assert "<title>MLflow</title>" in page(f"http://127.0.0.1:{mlflow}/")
    assert "<title>Prefect Server</title>" in page(f"http://127.0.0.1:{prefect}/dashboard")
    shown = httpx.get(f"http://127.0.0.1:{prefect}/ui-settings", timeout=30).json()
    assert shown["api_url"] == f"http://127.0.0.1:{prefect}/api", "the page asks the server that serves it"
    for port in ports:
        assert {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port} == {"127.0.0.1"}
    os.kill(ui.pid, end)
    until(lambda: not listens(mlflow) and not listens(prefect), f"both servers ended after {end.name}")


@pytest.mark.server
def test_a_port_in_use_is_one_clear_error(pipeline: Pipeline) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = pipeline.start("mlflow", "--no-browser", "--mlflow-port", str(port), module="flows.ui")
    assert done.returncode == 2
    assert f"MLflow cannot use port {port}" in done.stderr
    assert f"--mlflow-port {port + 1}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.server
def test_a_run_that_is_not_there_is_one_clear_error(pipeline: Pipeline) -> None:
    done = pipeline.start(
        "mlflow", "--no-browser", "--run", "f" * 32, "--mlflow-port", str(free_port()), module="flows.ui"
    )
    assert done.returncode == 2
    assert "has no run " + "f" * 32 in " ".join(done.stderr.split())


SLEEPER = "import sys, time; print('up', flush=True); time.sleep(300)"


@pytest.mark.slow
def test_an_embedded_server_whose_owner_was_killed_ends_with_the_next_start(tmp_path: Path) -> None:
    """A stand-in for the server: any process with its mark, once with a live owner and once with a dead one."""
    make = f"""
import os, subprocess, sys
from flows.running.embedded_server import own_server
with own_server():
    pass
os.environ["PREFECT__SERVER_EPHEMERAL"] = "1"
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""
    environment = {
        **clean_environment(),
        "PREFLOW_HOME": str(tmp_path),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # no server of their own
    }
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", make], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    servers = []
    for owner in owners:
        assert owner.stdout is not None
        servers.append(psutil.Process(int(owner.stdout.readline())))
    try:
        owners[0].kill()
        owners[0].wait()
        subprocess.run(
            [sys.executable, "-c", "from flows.running.embedded_server import own_server\nwith own_server(): pass"],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        until(lambda: gone(servers[0]), "the orphan ended")
        assert not gone(servers[1])
    finally:
        for process in (*owners, *servers):
            if psutil.pid_exists(process.pid):
                process.kill()
        for owner in owners:
            owner.wait()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
