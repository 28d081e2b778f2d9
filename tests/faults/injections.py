"""The faults that a run is given, each in two parts: while it stands still inside a stage, and after it goes on."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.faults.services import Site, wait_until

STAGES = ("validate", "sft", "reference", "dpo", "evaluate")
#: Stages that compute in ranks of a launch.
LAUNCHED = ("sft", "reference", "dpo")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        now: What happens while the run stands still.
        then: What happens once it goes on: the end of an outage, a worker that is started again.
        at_end: What happens once the run has ended.
        restarts: Whether the run's process ends and another one goes on.
        in_order: Whether that process gets an order to end: it saves before it does.
        one_command: Whether a person may be needed: nothing is left that could go on by itself.
        stages: Where it can happen.
        databases: With which databases of Prefect.
    """

    now: Callable[[Site, psutil.Process], None] = lambda site, run: None
    then: Callable[[Site, float], None] = lambda site, outage: None
    at_end: Callable[[Site], None] = lambda site: None
    restarts: bool = False
    in_order: bool = False
    one_command: bool = False
    stages: tuple[str, ...] = STAGES
    databases: tuple[str, ...] = ("sqlite", "postgresql")


def _kill_run(site: Site, run: psutil.Process) -> None:
    run.kill()


def _stop_worker(site: Site, outage: float) -> None:
    site.worker.stop(signal.SIGTERM)
    site.worker.start()


def _kill_worker(site: Site, run: psutil.Process) -> None:
    assert site.worker.process is not None
    os.kill(site.worker.process.pid, signal.SIGKILL)
    site.worker.process.wait()


def _start_all(site: Site, outage: float) -> None:
    site.start()


def _stop_prefect(site: Site, run: psutil.Process) -> None:
    site.prefect.stop()


def _stop_postgres(site: Site, run: psutil.Process) -> None:
    assert site.postgres is not None
    site.postgres.service.stop(signal.SIGINT)


def _stop_mlflow(site: Site, run: psutil.Process) -> None:
    site.mlflow.kill()


def _after_outage(site: Site, outage: float) -> None:
    time.sleep(outage)  # the fault itself
    site.start()


def _make_read_only(site: Site, run: psutil.Process) -> None:
    """A file in place of the folder: permissions are none for root."""
    site.artifacts.rename(site.artifacts.with_suffix(".away"))
    site.artifacts.write_text("")


def _make_writable(site: Site) -> None:
    site.artifacts.unlink()
    site.artifacts.with_suffix(".away").rename(site.artifacts)


def _start_mlflow(site: Site) -> None:
    site.start()


def _kill_rank(site: Site, run: psutil.Process) -> None:
    """Kill one of the two; a stage that has just begun starts them only once the run goes on."""
    run.resume()
    ranks = wait_until(lambda: found if len(found := _ranks(run)) == 2 else None, 120, "the ranks do not start", 0.005)
    ranks[-1].kill()


def _ranks(run: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in run.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            command = process.cmdline()
            if "preflow.stages.worker" in command and "accelerate.commands.launch" not in command:
                found.append(process)
    return found


def _kill_everything(site: Site, run: psutil.Process) -> None:
    for process in site.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for service in site.services:
        service.kill()
    wait_until(lambda: not site.processes(), 30, "a process outlives its kill")


def kill_run_if_any(site: Site, kind: str) -> int:
    """Kill at this moment the process of a run, its worker, or everything; how many kills that was: 0 or 1."""
    if kind == "flow-sigkill":
        runs = [p for p in site.processes() if "prefect.engine" in " ".join(p.cmdline())]
        for run in runs:
            with contextlib.suppress(psutil.NoSuchProcess):
                run.kill()
        return int(bool(runs))
    (_kill_worker if kind == "worker-sigkill" else _kill_everything)(site, psutil.Process())
    site.start()
    return 1


FAULTS: dict[str, Fault] = {
    "flow-sigkill": Fault(now=_kill_run, restarts=True),
    "worker-sigterm": Fault(then=_stop_worker, restarts=True, in_order=True),
    "worker-sigkill": Fault(now=_kill_worker, then=_start_all),
    "prefect-restart": Fault(now=_stop_prefect, then=_after_outage),
    "postgres-restart": Fault(now=_stop_postgres, then=_start_all, databases=("postgresql",)),
    "mlflow-outage": Fault(now=_stop_mlflow, then=_after_outage),
    "mlflow-gone": Fault(now=_stop_mlflow, at_end=_start_mlflow),
    "artifacts-read-only": Fault(now=_make_read_only, at_end=_make_writable),
    "rank-sigkill": Fault(now=_kill_rank, restarts=True, stages=LAUNCHED),
    "reboot": Fault(now=_kill_everything, then=_start_all, restarts=True),
}
