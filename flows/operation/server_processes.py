"""How a Prefect and an MLflow server of this machine are started: commands, settings, ports, and when they answer."""

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.running.addresses import HOST, allowed_hosts, proxy_names
from preflow.environment import preflow_home
from preflow.errors import UiError

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.3
#: Seconds that a server has until it answers; the first start makes a database on a busy machine.
START_SECONDS = 180
#: MLflow would start four more processes, for jobs, and no job is ever submitted to it here.
JOBLESS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
#: Options of uvicorn, by Prefect's settings of them.
_SERVER_OPTIONS = {
    "--timeout-keep-alive": "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT",
    "--ws-ping-interval": "PREFECT_SERVER_API_WEBSOCKET_PING_INTERVAL",
    "--ws-ping-timeout": "PREFECT_SERVER_API_WEBSOCKET_PING_TIMEOUT",
}
#: Seconds that requests which are under way have when Prefect's server ends.
_GRACE_SECONDS = 10
#: Slots of running trainings outlive a restart of the server.
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def mlflow_command(port: int, store: str) -> list[str]:
    """MLflow's server with its artifacts in the home folder.

    Args:
        port: Where it listens.
        store: Address of its database.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", HOST]
    command += ["--artifacts-destination", str(preflow_home() / "mlflow" / "artifacts")]
    # Names it answers to, and pages that may call it: its own.
    names = ",".join(f"{name},{name}:*" for name in allowed_hosts())  # a proxy passes on no port where it is the usual
    command += ["--allowed-hosts", names, "--cors-allowed-origins", own_pages(port)]
    return [*command, "--port", str(port), "--workers", "1"]


def own_pages(port: int) -> str:
    """The origins of a server's own page, which alone may call it from a browser, also where a proxy serves it."""
    proxies = [f"{scheme}://{name}" for name in proxy_names() for scheme in ("https", "http")]
    return ",".join([f"http://{HOST}:{port}", f"http://localhost:{port}", *proxies])


def prefect_command(port: int) -> list[str]:
    """Prefect's server, whose database is the one that its settings name.

    As ``prefect server start`` runs it, but for the names that it answers to, and that it does not wait for ever for
    what its clients have left open when it ends.
    """
    command = [sys.executable, "-m", "uvicorn", "--factory", "flows.operation.prefect_app:create_app"]
    command += ["--host", HOST, "--port", str(port), "--log-level", "info"]
    for option, setting in _SERVER_OPTIONS.items():
        if value := os.environ.get(setting):
            command += [option, value]
    return [*command, "--timeout-graceful-shutdown", str(_GRACE_SECONDS)]


def prefect_defaults(port: int) -> dict[str, str]:
    """Settings of Prefect's server: the address that its page asks, which page may, and slots that outlive it."""
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": own_pages(port),
        "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",  # slots of killed runs are free when their lease ends
    }


def log_file(name: str) -> Path:
    """Where a server's output goes; the folder is made."""
    log = preflow_home() / "logs" / f"{name.lower()}-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def require_free(name: str, port: int, option: str) -> None:
    """Refuse a port that another process has.

    Args:
        name: What is to listen there.
        port: On the loopback address.
        option: The option that gives another one.

    Raises:
        UiError: It is taken, or may not be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UiError(
                f"{name} cannot use port {port} on {HOST}: {error.strerror}. Stop what listens "
                f"there, or give another one: {option} {port + 1}"
            ) from error


def wait_until_healthy(
    name: str, url: str, ended: Callable[[], str | None] = lambda: None, seconds: float = START_SECONDS
) -> None:
    """Wait until a server answers.

    Args:
        name: The server.
        url: Of its health.
        ended: Says how it ended; nothing while it runs.
        seconds: How long it has.

    Raises:
        UiError: It ends, or does not answer in time.
    """
    import httpx

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if how := ended():
            raise UiError(f"{name} ended at once {how}")
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(_POLL_SECONDS)
    raise UiError(f"{name} did not answer at {url} within {seconds:g} s")


def end_with_parent() -> None:
    """Ask the kernel to end this process in order when its parent dies, even by SIGKILL; called by the child itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
