"""A worker that has to stop: its runs end in order before it does, and it takes no other meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.commands.servers.worker import environment, hand_back

#: A run that ends in order, as ``prefect flow-run execute`` does; or one that does not end.
RUN = """
import signal, sys, time
from pathlib import Path
def end(*_):
    time.sleep(0.2)
    Path(sys.argv[1]).write_text("in order")
    sys.exit(0)
signal.signal(signal.SIGTERM, end if sys.argv[2] == "orderly" else signal.SIG_IGN)
Path(sys.argv[1] + "-began").touch()
time.sleep(60)
"""
#: A worker that takes another run as soon as one ends, and ends on Ctrl-C.
WORKER = """
import signal, subprocess, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
try:
    subprocess.Popen([sys.executable, *sys.argv[2:]]).wait()
    Path(sys.argv[1]).write_text("took another")
except KeyboardInterrupt:
    pass
"""


def started(folder: Path, manner: str) -> "subprocess.Popen[bytes]":
    run = ["-c", RUN, str(folder / "run"), manner]
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(folder / "another"), *run], start_new_session=True)
    while not (folder / "run-began").exists():
        time.sleep(0.02)
    return worker


@pytest.mark.slow
def test_runs_end_in_order_and_no_other_begins(tmp_path: Path) -> None:
    worker = started(tmp_path, "orderly")
    hand_back(worker, 30.0)
    assert worker.returncode is not None
    assert (tmp_path / "run").read_text() == "in order"
    assert not (tmp_path / "another").exists()


@pytest.mark.slow
def test_a_run_that_does_not_end_is_killed_with_its_worker(tmp_path: Path) -> None:
    worker = started(tmp_path, "deaf")
    hand_back(worker, 0.3)
    assert worker.returncode is not None
    assert not (tmp_path / "run").exists()


def test_a_worker_that_has_ended_by_itself_needs_nothing(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", ""])
    worker.wait()
    hand_back(worker, 1.0)


def test_its_runs_go_back_to_the_pool_and_find_the_commands_beside_this_python() -> None:
    own = environment({"PATH": "/usr/bin", "HOME": "/home/x"})
    assert own["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert own["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert own["HOME"] == "/home/x"
