"""``preflow ui``: the MLflow and Prefect user interfaces on this machine, until Ctrl-C."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from flows.running.addresses import HOST, MLFLOW_PORT, PREFECT_PORT, mlflow_server, prefect_server
from flows.running.terminal import clear_errors
from preflow.environment import make_home, mlflow_uri, preflow_home
from preflow.errors import UiError

_PR_SET_PDEATHSIG = 1
_START_SECONDS = 120
_STOP_SECONDS = 15
#: MLflow would start four more processes, for jobs, and no job is ever submitted to it here.
_JOBLESS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


#: Slots of running trainings outlive a restart of the server.
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class Which(StrEnum):
    """The interfaces to open."""

    both = "both"
    mlflow = "mlflow"
    prefect = "prefect"


def main(
    which: Annotated[Which, typer.Argument(help="Which interface to open.")] = Which.both,
    run: Annotated[str | None, typer.Option(help="Open the page of this run (its id).")] = None,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect UI.")] = PREFECT_PORT,
    browser: Annotated[bool, typer.Option(help="Open a browser where there is a screen.")] = True,
) -> None:
    """Open the MLflow and Prefect user interfaces on this machine, until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that `finally` ends the servers
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    try:
        with clear_errors(), _mlflow(which, mlflow_port) as mlflow, _prefect(which, prefect_port) as prefect:
            if mlflow:
                _present("MLflow", _mlflow_page(mlflow, run if which is Which.mlflow else None), browser)
            if prefect:
                page = f"/runs/flow-run/{run}" if run and which is Which.prefect else "/dashboard"
                _present("Prefect", prefect + page, browser)
            typer.echo("Ctrl-C stops", err=True)
            signal.pause()
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


@contextmanager
def _mlflow(which: Which, port: int) -> Iterator[str | None]:
    if which is Which.prefect or mlflow_server():
        yield None if which is Which.prefect else mlflow_server()
        return
    from tasks.tracking.client import prepare_store

    prepare_store()
    command = ["-m", "mlflow", "server", "--backend-store-uri", mlflow_uri(), "--host", HOST]
    command += ["--artifacts-destination", str(preflow_home() / "mlflow" / "artifacts")]
    with _server("MLflow", [*command, "--port", str(port), "--workers", "1"], port, "/health") as url:
        yield url


@contextmanager
def _prefect(which: Which, port: int) -> Iterator[str | None]:
    if which is Which.mlflow or prefect_server():
        yield None if which is Which.mlflow else prefect_server()
        return
    from flows.running.embedded_server import server_lock

    make_home()
    command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    os.environ.setdefault("PREFECT_UI_API_URL", f"http://{HOST}:{port}/api")  # what the page in the browser calls
    os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", _LEASES)
    with ExitStack() as running:
        with server_lock():
            url = running.enter_context(_server("Prefect", command, port, "/api/health"))
        yield url


def _mlflow_page(server: str, run: str | None) -> str:
    from tasks.tracking.pipeline_run import find_run, run_address

    return server if run is None else run_address(find_run(run), server)


def _present(name: str, url: str, browser: bool) -> None:
    typer.echo(f"{name:<8} {url}", err=True)
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and screen:
        webbrowser.open(url)


@contextmanager
def _server(name: str, arguments: list[str], port: int, health: str) -> Iterator[str]:
    """Run a server in a process group of its own, which ends with this block or with this process."""
    _require_free(name, port)
    typer.echo(f"starting {name} ...", err=True)
    log = preflow_home() / "logs" / f"{name.lower()}-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_JOBLESS, **os.environ},
            start_new_session=True,
            # Safe: this process has one thread, and the child only makes one system call.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait_until_healthy(f"{name} (its log: {log})", process, url + health)
        yield url
    finally:
        _end(process)


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            option = f"--{name.lower()}-port"
            raise UiError(
                f"{name} cannot use port {port} on {HOST}: {error.strerror}. Stop what listens "
                f"there, or give another one: {option} {port + 1}"
            ) from error


def _die_with_parent() -> None:
    """Ask the kernel to end this child when its parent dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_healthy(name: str, process: subprocess.Popen[bytes], url: str) -> None:
    import httpx

    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UiError(f"{name} ended at once with exit code {process.returncode}")
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise UiError(f"{name} did not answer at {url} within {_START_SECONDS} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started."""
    for order in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, order)
            process.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
