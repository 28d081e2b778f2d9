"""Prefect (on SQLite or PostgreSQL), MLflow and a worker, each of which a test can stop, kill and start again."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fixtures.ports import free_port
from tests.integration.conftest import ROOT, clean_environment
from tests.integration.servers.commands import PREFECT, PREFLOW

POOL = "faults"
#: Seconds between two heartbeats of a run, and for which it waits for MLflow at its end.
HEARTBEAT, PATIENCE = 2.0, 3.0
_START_SECONDS = 600.0
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


def wait_until(what: Callable[[], Any], seconds: float, message: str, pause: float = 0.2) -> Any:
    """What ``what`` gives once that is true.

    Raises:
        AssertionError: It stayed false for so long.
    """
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"{message} (waited {seconds:g} s)"
        time.sleep(pause)
    return found


@dataclass
class Service:
    """A command that runs until it is stopped, in a process group of its own."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    health: str | None = None
    user: str | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def launch(self) -> None:
        """Start it."""
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=ROOT if self.user is None else "/",
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
            )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until it answers."""
        if self.health is not None:
            wait_until(self.answers, _START_SECONDS, f"{self.command[:4]} does not answer: {self.log}")

    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Whether it is there and well."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.command[:4]} ended with {self.process.returncode}: {self.log}"
        try:
            return httpx.get(str(self.health), timeout=2).is_success
        except httpx.TransportError:
            return False

    def stop(self, order: int = signal.SIGTERM, seconds: float = 90.0) -> None:
        """Send a signal to the process itself, and kill it where it has not ended by then, as a service manager does.

        A server waits for its clients' open requests; a client that a test holds still never ends its own.
        """
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(order)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill it and all that it started."""
        if self.process is None:
            return
        started = []
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


class Site:
    """One machine: its folders, its servers and its worker."""

    def __init__(self, folder: Path, database: str, **environment: str) -> None:
        """Describe what is to run.

        Args:
            folder: Where everything is kept.
            database: What Prefect keeps its runs in: ``sqlite`` or ``postgresql``.
            environment: More variables, of all services.
        """
        self.folder, self.home = folder, folder / "home"
        self.artifacts = folder / "mlflow" / "artifacts"
        for made in (self.home / "prefect", folder / "server", self.artifacts):
            made.mkdir(parents=True, exist_ok=True)
        prefect, mlflow = free_port(), free_port()
        self.environment = {
            **clean_environment(),
            "PREFLOW_HOME": str(self.home),
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
            "PREFLOW_HEARTBEAT_SECONDS": str(HEARTBEAT),
            "PREFLOW_MLFLOW_PATIENCE": str(PATIENCE),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self.postgres = Postgres(folder) if database == "postgresql" else None
        own = {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES}
        own |= {"PREFECT_SERVER_UI_ENABLED": "false", "PREFLOW_HOME": ""}
        if self.postgres is not None:
            own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.postgres.address
        self.prefect = Service(
            [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(prefect)],
            {**self.environment, **own},
            folder / "prefect.log",
            f"http://127.0.0.1:{prefect}/api/health",
        )
        self.mlflow = Service(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow/mlflow.db"),
                *("--artifacts-destination", str(self.artifacts), "--serve-artifacts"),
            ],
            {**self.environment, "PREFLOW_HOME": ""},
            folder / "mlflow.log",
            f"http://127.0.0.1:{mlflow}/health",
        )
        self.worker = Service([*PREFLOW, "worker", "--pool", POOL], self.environment, folder / "worker.log")

    @property
    def services(self) -> list[Service]:
        """All of them, in the order in which they start."""
        return [*([self.postgres.service] if self.postgres else []), self.prefect, self.mlflow, self.worker]

    @contextlib.contextmanager
    def running(self) -> Iterator["Site"]:
        """All services are there, until the block ends; nothing that they started outlives it."""
        try:
            self.start()
            yield self
        finally:
            for service in reversed(self.services):
                service.kill()
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if self.postgres is not None:
                self.postgres.remove()

    def start(self) -> None:
        """Start what does not run, all at once."""
        if self.postgres is not None:
            self.postgres.start()
        missing = [each for each in (self.prefect, self.mlflow, self.worker) if not each.is_running()]
        for service in missing:
            if service is not self.worker:
                service.launch()
        for service in missing:
            if service is self.worker:
                service.launch()
            service.wait_healthy()

    def processes(self) -> list[psutil.Process]:
        """Runs, and all that they started: whatever works in the home folder and is no service of the site."""
        services = {service.process.pid for service in self.services if service.process}
        found = []
        for process in psutil.process_iter():
            try:
                environment, ancestors = process.environ(), {parent.pid for parent in process.parents()}
                ended = process.status() == psutil.STATUS_ZOMBIE
            except (psutil.Error, OSError):  # not ours to look at, or just gone
                continue
            of_a_service = bool(services & {process.pid, *ancestors})
            if ended or environment.get("PREFLOW_HOME") != str(self.home):
                continue
            if "PREFECT__FLOW_RUN_ID" in environment or not of_a_service:
                found.append(process)
        return found


class Postgres:
    """A PostgreSQL cluster of the site's own; it does not run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="preflow-postgres-"))  # pytest's folders are for one user alone
        self.port = free_port()
        self.user: str | None = None
        if os.geteuid() == 0:
            there = {user.pw_name for user in pwd.getpwall()}
            self.user = next(name for name in ("postgres", "daemon", "bin") if name in there)
            shutil.chown(self.folder, self.user)
        data = self.folder / "data"
        self.service = Service(
            [
                "postgres",
                "-D",
                str(data),
                "-p",
                str(self.port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-k",
                str(self.folder),
            ],
            dict(os.environ),
            folder / "postgres.log",
            user=self.user,
        )
        self.address = f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Make the cluster where it is missing, start it, and wait until it takes connections."""
        if self.service.is_running():
            return
        data = self.folder / "data"
        if not data.exists():
            made = ["initdb", "-D", str(data), "-U", "prefect", "--auth=trust", "--no-sync"]
            subprocess.run(made, user=self.user, cwd="/", check=True, capture_output=True)
        self.service.launch()
        wait_until(self._is_ready, _START_SECONDS, f"PostgreSQL does not start: {self.service.log}")

    def _is_ready(self) -> bool:
        return "ready to accept connections" in self._log_of_this_start()

    def _log_of_this_start(self) -> str:
        return self.service.log.read_text().rpartition("starting PostgreSQL")[2]

    def restart(self) -> None:
        """Stop it, whatever is connected, and start it again."""
        self.service.stop(signal.SIGINT)
        self.start()

    def remove(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.folder, ignore_errors=True)
