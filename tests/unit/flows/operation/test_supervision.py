"""Processes under supervisord: they end in the reverse order, are started again, and die with the command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.operation.supervision import Program, Supervision, configuration, supervised

#: Writes when it is there and when it was asked to end, for which it takes its time.
ORDERLY = """
import os, signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[3]))
    print("end", sys.argv[1], file=open(sys.argv[2], "a"), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("begin", sys.argv[1], os.environ.get("GIVEN"), os.getpid(), file=open(sys.argv[2], "a"), flush=True)
print("said by", sys.argv[1], flush=True)
time.sleep(60)
"""


def orderly(name: str, book: Path, seconds: float = 0.0, log: str | None = "log") -> Program:
    return Program(name, [sys.executable, "-c", ORDERLY, name, str(book), str(seconds)], log, 10)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lines(book: Path) -> list[str]:
    return book.read_text().splitlines() if book.exists() else []


def begun(running: Supervision, name: str, book: Path) -> int:
    before = len(lines(book))
    running.start(name)
    until(lambda: len(lines(book)) > before)
    return int(lines(book)[-1].split()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A name in which a configuration file would see a comment and an expansion."""
    made = tmp_path / "logs ;of #1 %(all)s"
    made.mkdir()
    return made


@pytest.mark.slow
def test_the_last_that_started_ends_first_and_the_others_wait_for_it(folder: Path) -> None:
    book = folder / "book"
    programs = [orderly("first", book), orderly("second", book, seconds=0.5)]
    with supervised(programs, folder, {**os.environ, "GIVEN": "100%"}) as running:
        for program in programs:
            begun(running, program.name, book)
            assert running.ended(program.name) is None
    assert [line.split()[:3] for line in lines(book)] == [
        ["begin", "first", "100%"],
        ["begin", "second", "100%"],
        ["end", "second"],
        ["end", "first"],
    ]
    assert (folder / "log").read_text().split("\n")[0].startswith("said by")


@pytest.mark.slow
def test_what_was_killed_is_started_again(folder: Path) -> None:
    book = folder / "book"
    with supervised([orderly("only", book)], folder, os.environ) as running:
        process = begun(running, "only", book)
        time.sleep(3.2)  # it is called running after three seconds
        os.kill(process, signal.SIGKILL)
        until(lambda: len(lines(book)) == 2)


@pytest.mark.slow
def test_what_cannot_start_is_reported(folder: Path) -> None:
    broken = Program("broken", [sys.executable, "-c", "raise SystemExit(3)"], "log", 1)
    with supervised([broken], folder, os.environ) as running:
        running.start("broken")
        until(lambda: running.ended("broken") is not None)
        assert "too quickly" in str(running.ended("broken"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells a child that its parent has died")
def test_all_end_with_the_command_that_was_killed_and_its_terminal_shows_what_they_said(folder: Path) -> None:
    book = folder / "book"
    code = f"""
import os, sys, time
from pathlib import Path
from flows.operation.supervision import Program, supervised
program = Program("only", {list(orderly("only", book).command)}, None, 10)
with supervised([program], Path(sys.argv[1]), os.environ) as running:
    running.start("only")
    time.sleep(60)
"""
    said = folder / "said"
    with said.open("w") as output:
        command = subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=output)
    try:
        until(lambda: bool(lines(book)))
        process = psutil.Process(int(lines(book)[0].split()[-1]))
        until(lambda: "said by only" in said.read_text())
    finally:
        command.kill()
        command.wait()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert lines(book)[-1] == "end only", "in order"


def test_no_command_and_no_log_folder_occurs_in_the_configuration(tmp_path: Path) -> None:
    text = configuration([Program("a", ["secret"], "a.log", 7), Program("b", ["other"], None, 9)], tmp_path, 0o027)
    assert "secret" not in text
    assert "umask=027" in text
    assert text.index("[program:a]\n") < text.index("priority=1") < text.index("[program:b]\n")
    assert "stdout_logfile=a.log\n" in text
    assert "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n" in text
    assert "stopwaitsecs=9" in text
