"""``preflow worker``: a worker of a pool, which hands its runs back when it has to stop.

Prefect's own process worker ends its runs with itself. This one starts it, and on SIGTERM or Ctrl-C first keeps it from
taking another run, then lets each run end in order and go back to the pool, where a worker finds it again. Runs that an
earlier worker left behind when it was killed count as its own, and those whose process was killed go back to the pool.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import psutil
import typer

from flows.running.machine_errors import ask_for_file_handles
from flows.running.terminal import clear_errors

#: Seconds that all runs together have for their end, below the 60 that compose.yaml leaves a container.
_GRACE = 45.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1


def main(
    pool: Annotated[str, typer.Option(help="The work pool; made where it is missing.")] = "preflow-pool",
    limit: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    name: Annotated[str | None, typer.Option(help="The worker's name; random where not given.")] = None,
) -> None:
    """Run the deployments of a work pool on this machine, until SIGTERM or Ctrl-C hands them back."""
    for order in (signal.SIGTERM, signal.SIGINT):
        signal.signal(order, _stop)
    with clear_errors():
        code = _work(pool, limit, name)
    raise typer.Exit(code)


def _work(pool: str, limit: int, name: str | None) -> int:
    """Run the worker to its end; the exit code."""
    ask_for_file_handles()
    from flows.operation.process_records import orphans

    try:
        left = _wait_for_room(limit)
    except KeyboardInterrupt:
        hand_back(None, _GRACE, orphans())
        return 0
    command = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    command += ["--limit", str(limit - len(left)), "--install-policy", "never", "--with-healthcheck"]
    worker = _start([*command, *(["--name", name] if name else [])])
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), daemon=True).start()
    try:
        return worker.wait()
    except KeyboardInterrupt:
        ended.set()
        hand_back(worker, _GRACE, left)
        return 0


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment(os.environ),
        start_new_session=True,  # Ctrl-C reaches this process alone
        # Safe: this process has one thread yet, and the child only makes system calls.
        preexec_fn=_prepare if sys.platform == "linux" else None,  # noqa: PLW1509
    )


def _wait_for_room(limit: int) -> list[psutil.Process]:
    """Wait until fewer runs than ``limit`` are left of a worker that was killed; those that are left then."""
    from flows.operation.process_records import orphans

    left = orphans()
    if left:
        typer.echo(f"{len(left)} runs go on that an earlier worker has started; they count here", err=True)
    while len(left) >= limit:
        time.sleep(_POLL_SECONDS)
        left = orphans()
    return left


def _watch(ended: threading.Event) -> None:
    from flows.operation.recovery import watch

    watch(ended, lambda line: typer.echo(line, err=True))


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


def hand_back(worker: "subprocess.Popen[bytes] | None", grace: float, others: Sequence[psutil.Process] = ()) -> None:
    """Let a worker's runs end and go back to the pool, then end the worker.

    Args:
        worker: Prefect's worker, where it has been started.
        grace: Seconds that all runs have.
        others: Runs that it has not started.
    """
    try:
        process = psutil.Process(worker.pid) if worker else None
        runs = list(others)
        if process is not None:
            process.suspend()  # it takes no other run meanwhile
            runs += process.children()
        runs = [run for run in runs if run.is_running() and run.status() != psutil.STATUS_ZOMBIE]
        typer.echo(f"handing {len(runs)} runs back", err=True)
        for run in runs:
            run.terminate()
        _wait(runs, grace)
        if process is not None and worker is not None:
            process.send_signal(signal.SIGINT)
            process.resume()
            worker.wait(_STOP_SECONDS)
    except psutil.NoSuchProcess:  # it ended by itself
        pass
    except subprocess.TimeoutExpired:
        assert worker is not None
        worker.kill()
    if worker is not None:
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
