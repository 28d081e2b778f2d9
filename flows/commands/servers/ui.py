"""``preflow ui``: the MLflow and Prefect user interfaces on this machine, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from flows.operation.server_processes import (
    JOBLESS,
    end_with_parent,
    log_file,
    mlflow_command,
    prefect_command,
    prefect_defaults,
    require_free,
    wait_until_healthy,
)
from flows.running.addresses import HOST, MLFLOW_PORT, PREFECT_PORT, mlflow_server, prefect_server
from flows.running.terminal import clear_errors
from preflow.environment import make_home, mlflow_uri

_STOP_SECONDS = 15


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
    with _server("MLflow", mlflow_command(port, mlflow_uri()), port, "/health") as url:
        yield url


@contextmanager
def _prefect(which: Which, port: int) -> Iterator[str | None]:
    if which is Which.mlflow or prefect_server():
        yield None if which is Which.mlflow else prefect_server()
        return
    from flows.running.embedded_server import server_lock

    make_home()
    for variable, value in prefect_defaults(port).items():
        os.environ.setdefault(variable, value)
    with ExitStack() as running:
        with server_lock():
            url = running.enter_context(_server("Prefect", prefect_command(port), port, "/api/health"))
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
def _server(name: str, command: list[str], port: int, health: str) -> Iterator[str]:
    """Run a server in a process group of its own, which ends with this block or with this process."""
    require_free(name, port, f"--{name.lower()}-port")
    typer.echo(f"starting {name} ...", err=True)
    log = log_file(name)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**JOBLESS, **os.environ},
            start_new_session=True,
            # Safe: this process has one thread, and the child only makes one system call.
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )

    def ended() -> str | None:
        return None if process.poll() is None else f"with exit code {process.returncode}"

    try:
        url = f"http://{HOST}:{port}"
        wait_until_healthy(f"{name} (its log: {log})", url + health, ended)
        yield url
    finally:
        _end(process)


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
