"""Parts of a GPU check run in processes of their own: what they gave is kept, however they end."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.gpu.processes import Part, in_child, run_part, start_method

WORK = SimpleNamespace(start_method="fork")


def ended(part: Part, seconds: float, out: Path) -> tuple[str, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    return run_part(part, WORK, out, seconds, lines.append), lines


def two_lines(work: Any, out: Path) -> Iterator[dict[str, Any]]:
    yield {"number": 1}
    (out / "two").touch()
    yield {"number": 2}


def endless(work: Any, out: Path) -> Iterator[dict[str, Any]]:
    """With a process of its own that would outlive it."""
    child = os.fork()
    if not child:
        time.sleep(600)
    yield {"child": child}
    time.sleep(600)


def broken(work: Any, out: Path) -> Iterator[dict[str, Any]]:
    yield {"number": 1}
    raise ValueError("no such luck")


def test_a_part_gives_its_lines_one_by_one(tmp_path: Path) -> None:
    assert ended(two_lines, 60, tmp_path) == ("done", [{"number": 1}, {"number": 2}])
    assert (tmp_path / "two").is_file()


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_ended_with_all_its_processes_and_its_lines_stay(tmp_path: Path) -> None:
    state, (line,) = ended(endless, 1, tmp_path)
    assert state == "stopped at its limit of 1 s"
    for _ in range(200):  # a process that ended may be seen for a moment more
        status = Path(f"/proc/{line['child']}/status")
        if not status.exists() or "State:\tZ" in status.read_text(encoding="ascii"):
            return
        time.sleep(0.05)
    pytest.fail("its process runs on")


def test_of_a_part_that_fails_the_lines_and_the_error_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ended(broken, 60, tmp_path) == ("failed with exit code 1, see above", [{"number": 1}])
    assert "no such luck" in capfd.readouterr().err


def test_a_function_runs_apart() -> None:
    """In a process with another number."""
    assert in_child("fork", os.getpid) != os.getpid()
    with pytest.raises(RuntimeError, match="gave no result"):
        in_child("fork", partial(os._exit, 3))


def test_processes_are_copied_where_a_copy_can_use_the_device() -> None:
    """A copy that cannot, as after a use of CUDA, means that each starts anew."""
    assert start_method("cpu") == "fork"
    assert start_method("no such device") == "spawn"
