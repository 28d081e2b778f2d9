"""A Prefect server, an MLflow server and a worker on this machine, together: what ``preflow serve`` runs."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from filelock import FileLock, Timeout
from prefect.settings import PREFECT_API_URL

from flows.operation.server_processes import (
    JOBLESS,
    log_file,
    mlflow_command,
    prefect_command,
    prefect_defaults,
    require_free,
    wait_until_healthy,
)
from flows.operation.supervision import Program, Supervision, supervised
from flows.running.addresses import HOST, mlflow_server
from preflow.environment import mlflow_uri, preflow_home
from preflow.errors import UiError
from preflow.redaction import without_login

#: Seconds that a server has for its end, and a worker, whose runs have 45.
_SERVER_SECONDS, _WORKER_SECONDS = 15, 70
_LOCAL = {HOST, "localhost"}


@dataclass(frozen=True, slots=True)
class Service:
    """What is started, or is there already.

    Attributes:
        name: For people.
        address: Where it answers.
        health: What of it is asked.
        program: How it is started here; none where the environment names one elsewhere.
        port: Where it listens.
        option: The option that gives another port.
    """

    name: str
    address: str
    health: str
    program: Program | None
    port: int
    option: str

    @property
    def key(self) -> str:
        """Its name among processes."""
        return self.name.lower()


def services(mlflow_port: int, prefect_port: int, worker_port: int, pool: str, limit: int) -> list[Service]:
    """Both servers and the worker, in the order in which they start.

    Args:
        mlflow_port: Port of MLflow's server.
        prefect_port: Port of Prefect's server.
        worker_port: Port at which the worker says that it is there.
        pool: The work pool.
        limit: Runs at once.
    """
    tracking = mlflow_uri()
    store = f"sqlite:///{preflow_home() / 'mlflow' / 'mlflow.db'}" if mlflow_server() else tracking
    mlflow = _server("MLflow", tracking, "", mlflow_port, mlflow_command(mlflow_port, store))
    prefect = _server("Prefect", PREFECT_API_URL.value(), "/api", prefect_port, prefect_command(prefect_port))
    command = [sys.executable, "-m", "flows.commands.app", "worker", "--pool", pool, "--limit", str(limit)]
    worker = Program("worker", command, None, _WORKER_SECONDS)
    return [
        mlflow,
        prefect,
        Service("worker", f"http://{HOST}:{worker_port}", "/health", worker, worker_port, "--worker-port"),
    ]


def _server(name: str, named: str | None, path: str, port: int, command: list[str]) -> Service:
    """A server to be started, or the one that the environment names, which is elsewhere."""
    url = httpx.URL(named or f"http://{HOST}:{port}{path}")
    option = f"--{name.lower()}-port"
    if url.scheme not in ("http", "https") or (url.host in _LOCAL and url.port == port):
        program = Program(name.lower(), command, log_file(name).name, _SERVER_SECONDS)
        return Service(name, f"http://{HOST}:{port}", f"{path}/health", program, port, option)
    address = without_login(str(url)).rstrip("/").removesuffix(path)
    return Service(name, address, f"{path}/health", None, port, option)


def environment(started: list[Service], own: Mapping[str, str]) -> dict[str, str]:
    """The environment of all processes: where each finds the others, and what the servers keep.

    Args:
        started: Both servers and the worker.
        own: This process's environment, whose settings win.
    """
    mlflow, prefect, worker = started
    found = {"PREFECT_WORKER_WEBSERVER_HOST": HOST, **JOBLESS, **own, "PYTHONUNBUFFERED": "1"}
    found["PREFECT_WORKER_WEBSERVER_PORT"] = str(worker.port)
    if mlflow.program:
        found["MLFLOW_TRACKING_URI"] = mlflow.address
    if prefect.program:
        found = {**prefect_defaults(prefect.port), **found, "PREFECT_API_URL": f"{prefect.address}/api"}
        found.setdefault("PREFECT_UI_STATIC_DIRECTORY", str(preflow_home() / "prefect" / "ui"))
        found["PREFECT_API_AUTH_STRING"] = found.get("PREFECT_SERVER_API_AUTH_STRING") or own_login()
        found["PREFECT_SERVER_API_AUTH_STRING"] = found["PREFECT_API_AUTH_STRING"]
    return found


def own_login() -> str:
    """``NAME:PASSWORD`` of the Prefect server of this home folder, made once; its file is this user's alone.

    A page of another name that is led to this machine's address, or another user of it, could start runs otherwise.
    """
    file = preflow_home() / "prefect" / "login"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return file.read_text(encoding="utf-8").strip()
    with os.fdopen(made, "w", encoding="utf-8") as handle:
        handle.write(f"preflow:{secrets.token_urlsafe(24)}\n")
    return file.read_text(encoding="utf-8").strip()


@contextmanager
def serving(started: list[Service]) -> Iterator[Supervision]:
    """Keep servers and the worker while the block runs; none is started yet.

    Args:
        started: Both servers and the worker.

    Raises:
        UiError: A port is taken, or the home folder is served already.
    """
    own = [service for service in started if service.program]
    if len({service.port for service in own}) < len(own):
        raise UiError(
            "two ports are the same: give each of " + ", ".join(service.option for service in own) + " its own"
        )
    lock = FileLock(preflow_home() / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UiError(f"{preflow_home()} is served already: stop that preflow serve, or set PREFLOW_HOME") from error
    try:
        for service in own:
            require_free(service.name, service.port, service.option)
        programs = [service.program for service in own if service.program]
        with supervised(programs, log_file("supervisor").parent, environment(started, os.environ)) as supervision:
            yield supervision
    finally:
        lock.release()


def bring_up(service: Service, supervision: Supervision) -> None:
    """Start a service, or look for one that is elsewhere, and wait until it answers.

    Raises:
        UiError: It ends, or does not answer in time.
    """
    url = service.address + service.health
    if service.program is None:
        wait_until_healthy(service.name, url, seconds=_SERVER_SECONDS)
        return
    supervision.start(service.key)
    log = service.program.log
    name = f"{service.name} (its log: {preflow_home() / 'logs' / log})" if log else service.name
    wait_until_healthy(name, url, lambda: supervision.ended(service.key))
