"""Commands and servers that tests start as processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.integration.conftest import ROOT

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


def wait_for(url: str) -> None:
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


def post(environment: dict[str, str], path: str, body: Any) -> Any:
    """A question to the Prefect server, asked again as Prefect's own clients do where its database is busy."""
    from prefect.client.base import PrefectHttpxSyncClient

    with PrefectHttpxSyncClient(
        base_url=environment["PREFECT_API_URL"], enable_csrf_support=False, timeout=30
    ) as asked:
        answer = asked.post(f"/{path}", json=body)
        answer.raise_for_status()
        return answer.json()
