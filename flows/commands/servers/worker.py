"""``preflow worker``: a worker of a pool, which hands its runs back when it has to stop.

Prefect's own process worker ends its runs with itself. This one starts it, and on SIGTERM or Ctrl-C first keeps it from
taking another run, then lets each run end in order and go back to the pool, where a worker finds it again.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated

import psutil
import typer

#: Seconds that all runs together have for their end, below the 60 that compose.yaml leaves a container.
_GRACE = 45.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def main(
    pool: Annotated[str, typer.Option(help="The work pool; made where it is missing.")] = "preflow-pool",
    limit: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    name: Annotated[str | None, typer.Option(help="The worker's name; random where not given.")] = None,
) -> None:
    """Run the deployments of a work pool on this machine, until SIGTERM or Ctrl-C hands them back."""
    command = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", str(limit)]
    command += ["--install-policy", "never", "--with-healthcheck", *(["--name", name] if name else [])]
    for order in (signal.SIGTERM, signal.SIGINT):
        signal.signal(order, _stop)
    worker = subprocess.Popen(
        [sys.executable, *command],
        env=environment(os.environ),
        start_new_session=True,  # Ctrl-C reaches this process alone
        # Safe: this process has one thread, and the child only makes system calls.
        preexec_fn=_prepare if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    try:
        code = worker.wait()
    except KeyboardInterrupt:
        hand_back(worker, _GRACE)
        code = 0
    raise typer.Exit(code)


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: its runs go back to the pool on SIGTERM, and find this installation's commands."""
    commands = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")])
    return {**own, "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule", "PATH": commands}


def _prepare() -> None:
    """Stop as Prefect expects it, and end with this process: runs outlive a worker that is killed, and end in order."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(number: int, frame: FrameType | None) -> None:
    """A second order changes nothing: the runs are on their way back."""
    for order in (signal.SIGTERM, signal.SIGINT):
        signal.signal(order, signal.SIG_IGN)
    raise KeyboardInterrupt


def hand_back(worker: "subprocess.Popen[bytes]", grace: float) -> None:
    """Let a worker's runs end and go back to the pool, then end the worker.

    Args:
        worker: Prefect's worker.
        grace: Seconds that its runs have.
    """
    try:
        process = psutil.Process(worker.pid)
        process.suspend()  # it takes no other run meanwhile
        runs = [run for run in process.children() if run.status() != psutil.STATUS_ZOMBIE]
        typer.echo(f"handing {len(runs)} runs back", err=True)
        for run in runs:
            run.terminate()
        _wait(runs, grace)
        process.send_signal(signal.SIGINT)
        process.resume()
        worker.wait(_STOP_SECONDS)
    except psutil.NoSuchProcess:  # it ended by itself
        pass
    except subprocess.TimeoutExpired:
        worker.kill()
    worker.wait()


def _wait(runs: list[psutil.Process], seconds: float) -> None:
    """Wait until runs have ended; their parent, which is suspended, does not collect them."""
    deadline = time.monotonic() + seconds
    while any(run.is_running() and run.status() != psutil.STATUS_ZOMBIE for run in runs):
        if time.monotonic() > deadline:
            for run in runs:
                run.kill()
            return
        time.sleep(0.1)
