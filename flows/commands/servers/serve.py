"""``preflow serve``: a Prefect server, an MLflow server and a worker on this machine, until Ctrl-C."""

import os
import shlex
import signal
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.addresses import MLFLOW_PORT, PREFECT_PORT
from flows.running.terminal import clear_errors
from preflow.environment import login_file, make_home

if TYPE_CHECKING:
    from flows.operation.local_servers import Service

_WORKER_PORT = 8080


def main(
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MLflow's server.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's server.")] = PREFECT_PORT,
    worker_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port at which the worker says that it is there.")
    ] = _WORKER_PORT,
    pool: Annotated[str, typer.Option(help="The work pool; made where it is missing.")] = "preflow-pool",
    limit: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
) -> None:
    """Start both servers and a worker in this terminal; Ctrl-C ends them in order, a training at a checkpoint.

    A server that MLFLOW_TRACKING_URI or PREFECT_API_URL names elsewhere is used, and none started in its place.
    """
    for order in (signal.SIGTERM, signal.SIGINT):
        signal.signal(order, _stop)
    try:
        with clear_errors():
            _serve(mlflow_port, prefect_port, worker_port, pool, limit)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _serve(mlflow_port: int, prefect_port: int, worker_port: int, pool: str, limit: int) -> None:
    make_home()  # before Prefect is imported
    from flows.operation.local_servers import bring_up, services, serving
    from preflow.errors import UiError

    started = services(mlflow_port, prefect_port, worker_port, pool, limit)
    with serving(started) as supervision:
        try:
            for service in started:
                typer.echo(f"{service.name} ...", err=True)
                bring_up(service, supervision)
            mlflow, prefect, _ = started
            _present(mlflow, prefect, pool)
            raise UiError(f"the processes' supervisor ended with exit code {supervision.wait()}: start again")
        except KeyboardInterrupt:
            typer.echo("stopping; a running training ends at a checkpoint and goes back to the pool", err=True)
            raise


def _present(mlflow: "Service", prefect: "Service", pool: str) -> None:
    for service in (mlflow, prefect):
        typer.echo(f"{service.name:<8} {service.address}", err=True)
    typer.echo(f"a worker of the pool {pool} waits for runs; in other terminals:", err=True)
    typer.echo(f"    export PREFECT_API_URL={prefect.address}/api MLFLOW_TRACKING_URI={mlflow.address}", err=True)
    if prefect.program and "PREFECT_SERVER_API_AUTH_STRING" not in os.environ:
        file = shlex.quote(str(login_file()))
        typer.echo(
            f"Prefect's page asks for the text in {file}, which preflow reads; Prefect's commands need", err=True
        )
        typer.echo(f'    export PREFECT_API_AUTH_STRING="$(cat {file})"', err=True)
    typer.echo("Ctrl-C stops", err=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """A second order changes nothing: all are on their way to their end."""
    for order in (signal.SIGTERM, signal.SIGINT):
        signal.signal(order, signal.SIG_IGN)
    raise KeyboardInterrupt
