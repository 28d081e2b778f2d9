"""Prefect's embedded server: started only where Prefect would start one, and ready when the block ends."""

import atexit
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock, Timeout
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from flows.running import embedded_server
from flows.running.embedded_server import own_server
from preflow.errors import UiError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that the server sets are put back at the end."""
    for name in embedded_server._OWNER_VARIABLES.values():
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setattr(atexit, "register", lambda *_: None)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for the server: a process that does nothing, and a check that is always passed."""
    processes: list[Any] = []

    def start(_listener: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        processes.append(process)
        return process

    monkeypatch.setattr(embedded_server, "_start", start)
    monkeypatch.setattr(embedded_server, "_wait", lambda *_: None)
    monkeypatch.setattr(embedded_server, "_name", lambda _address: None)
    monkeypatch.setattr(embedded_server, "require_prefect", lambda: None)
    return processes


@pytest.mark.parametrize(
    ("allowed", "address", "count"),
    [(True, None, 1), (False, None, 0), (True, "http://127.0.0.1:1/api", 0)],
    ids=["embedded", "forbidden", "another server"],
)
def test_a_server_is_started_where_none_is_named_and_prefect_may(
    allowed: bool, address: str | None, count: int, started: list[Any], tmp_path: Path
) -> None:
    settings = {PREFECT_API_URL: address, PREFECT_SERVER_EPHEMERAL_ENABLED: allowed, PREFECT_HOME: tmp_path}
    with temporary_settings(settings), own_server():
        assert len(started) == count, "it starts while the block runs"
    for process in started:
        process.kill()
        process.wait()


def test_no_other_server_starts_until_this_one_is_ready(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = FileLock(tmp_path / "server.lock", is_singleton=False)
    waited: list[bool] = []

    def wait(*_: Any) -> None:
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)
        waited.append(True)

    monkeypatch.setattr(embedded_server, "_wait", wait)
    settings = {PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True, PREFECT_HOME: tmp_path}
    with temporary_settings(settings), own_server():
        (server,) = started
        server.kill()
        server.wait()
    assert waited
    with lock.acquire(timeout=0):
        pass


def test_a_server_that_ends_at_once_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        embedded_server, "_start", lambda _: subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    )
    monkeypatch.setattr(embedded_server, "_name", lambda _address: None)
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True, PREFECT_HOME: tmp_path}),
        pytest.raises(UiError, match="exit code 7"),
        own_server(),
    ):
        pass


@pytest.mark.slow
@pytest.mark.server
def test_prefects_clients_find_the_server_ready_and_it_ends_with_its_process(tmp_path: Path) -> None:
    code = """
import tasks
from flows.running.embedded_server import own_server
with own_server():
    pass
import sys
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    assert client.api_healthcheck() is None
    print(client.api_url)
assert "prefect.server.api.server" not in sys.modules
"""
    own = {"PREFLOW_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **own}, stdout=subprocess.PIPE, text=True, check=True
    )
    with pytest.raises(httpx.ConnectError):
        httpx.get(done.stdout.strip() + "health", timeout=2)
