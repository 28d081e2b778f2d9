"""A process whose output has lost its reader goes on, through whichever library it writes."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

#: Waits until its reader has gone, then writes as rich, Prefect's log, ``print`` and progress bars of libraries do.
WRITER = """
import logging, sys
from pathlib import Path
from rich.console import Console
early = Console(file=sys.stderr)  # as Prefect's log has one: made before the run begins
from tasks.runtime.lost_output import outlive_readers
outlive_readers()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    Console(stderr=True).print("rich")
    early.print("a log")
    print("print", flush=True)
    sys.stderr.write("a bar")
    sys.stderr.flush()
    logging.getLogger().warning("a warning")
Path(sys.argv[1]).write_text("went on")
"""


def start(end: Path, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(end)], stdin=subprocess.PIPE, stdout=output, stderr=output
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_process_outlives_the_reader_of_its_output(tmp_path: Path, kind: str) -> None:
    reader, output = os.pipe() if kind == "pipe" else pty.openpty()
    process = start(tmp_path / "end", output)
    os.close(output)
    assert b"ready" in os.read(reader, 100)
    os.close(reader)
    process.communicate(b"go on\n")
    assert process.returncode == 0
    assert (tmp_path / "end").read_text() == "went on"


@pytest.mark.slow
def test_what_is_read_arrives_unchanged(tmp_path: Path) -> None:
    reader, output = os.pipe()
    process = start(tmp_path / "end", output)
    os.close(output)
    process.communicate(b"go on\n")
    with os.fdopen(reader) as said:
        text = said.read()
    assert text.startswith("ready\n")
    assert [text.count(part) for part in ("rich\n", "a log\n", "print\n", "a bar", "a warning\n")] == [3] * 5
