"""Prefect's embedded server: a process of this run's own, which starts while the run loads its libraries.

Prefect's clients would start one too, but only once they are needed, and for that they import the whole server into
this process. The server ends with its run, unless that is killed: then the next start ends it.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock

from flows.running.addresses import HOST, require_prefect
from preflow.errors import UiError
from tasks.tracking.lineage import is_gone, process_tags

_OWNER_VARIABLES = {
    "host": "PREFLOW_OWNER_HOST",
    "boot": "PREFLOW_OWNER_BOOT",
    "pid_namespace": "PREFLOW_OWNER_PID_NAMESPACE",
    "pid": "PREFLOW_OWNER_PID",
    "process_started": "PREFLOW_OWNER_STARTED",
}
_EMBEDDED = "PREFECT__SERVER_EPHEMERAL"
#: As Prefect starts its own: no UI, only the services that a run needs, and no second instance in that process.
_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    _EMBEDDED: "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}",  # it has no page
}
_APPLICATION = "flows.operation.prefect_app:create_app"
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5


@contextmanager
def own_server() -> Iterator[None]:
    """Start Prefect's embedded server while the block runs, and wait for it at the block's end.

    It is started only where Prefect would start one: no other server is named, and embedded ones are not forbidden.
    Servers whose owner is gone are ended.

    Raises:
        UiError: The server does not start.
    """
    for tag, value in process_tags().items():
        os.environ[_OWNER_VARIABLES[tag]] = value
    _end_orphans()
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_EPHEMERAL_ENABLED,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    )

    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        if PREFECT_API_URL.value():
            require_prefect()
        yield  # an external server, or none: then Prefect's client reports it
        return
    with server_lock(), socket.create_server((HOST, 0)) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/api"
        process = _start(listener)
        atexit.register(_end, process)
        _name(address)
        yield
        _wait(process, address, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())


def server_lock() -> FileLock:
    """Held while a server starts: two must not make one database's tables at once."""
    from prefect.settings import PREFECT_HOME

    return FileLock(PREFECT_HOME.value() / "server.lock")


def _end_orphans() -> None:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # not ours to look at, or just gone
            continue
        owner = {tag: environment.get(name, "") for tag, name in _OWNER_VARIABLES.items()}
        if environment.get(_EMBEDDED) == "1" and all(owner.values()) and is_gone(owner):
            process.terminate()


def _start(listener: socket.socket) -> "subprocess.Popen[bytes]":
    """Serve Prefect's API on a socket that listens already.

    Ctrl-C reaches every process of a terminal. The server must not receive it: the run has yet to report its end.
    """
    command = [sys.executable, "-m", "uvicorn", "--factory", _APPLICATION]
    command += ["--fd", str(listener.fileno()), "--log-level", "error", "--lifespan", "on"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes are born with their parent's mask
    try:
        return subprocess.Popen(command, env={**os.environ, **_SETTINGS}, pass_fds=[listener.fileno()])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _name(address: str) -> None:
    """Make a server the one that every Prefect client of this process, and of those that it starts, talks to."""
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = address
    refresh_global_settings_context()


def _wait(process: "subprocess.Popen[bytes]", address: str, seconds: float) -> None:
    import httpx

    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=1) as client:  # connections wait at the socket until the server takes them
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{address}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_SECONDS)
    code = process.poll()
    ended = f"did not answer within {seconds:g} s" if code is None else f"ended at once with exit code {code}"
    raise UiError(f"Prefect's embedded server {ended}; what it printed above names the cause")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
