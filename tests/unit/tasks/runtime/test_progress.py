"""Progress on the terminal and in a log file."""

import subprocess
import sys
from io import StringIO

from rich.console import Console

from tasks.runtime.progress import ProgressBars, ProgressLines, ProgressObserver, TimeLeft


def test_the_time_left_goes_by_the_pace_so_far() -> None:
    """3 rows in 6 seconds: the other 7 take 14. The first call measures nothing."""
    left = TimeLeft()
    assert left.after(1, 11, "rows", now=100.0) == ""
    assert left.after(4, 11, "rows", now=106.0) == ", 14 s left"
    assert left.after(11, 11, "rows", now=120.0) == ""
    assert left.after(1, 500, "steps", now=130.0) == ""
    assert left.after(2, 500, "steps", now=131.0) == ", 8 min 18 s left"


def test_a_log_file_gets_each_line_once() -> None:
    out = StringIO()
    lines = ProgressLines(Console(file=out))
    for done in (1, 2, 2, 2):
        lines.show(done, 2, "rows read")
    lines.show(2, 2, "rows judged")
    assert out.getvalue().splitlines() == ["  rows read 1/2", "  rows read 2/2", "  rows judged 2/2"]


def test_bars_are_drawn_on_a_terminal_alone() -> None:
    for terminal in (True, False):
        out = StringIO()
        with ProgressBars(Console(file=out, force_terminal=terminal, width=100)) as bars:
            ProgressObserver(bars).progress(3, 12, "rows read")
        assert ("rows read" in out.getvalue()) == terminal
        assert ("3/12" in out.getvalue()) == terminal


def test_progress_needs_neither_prefect_nor_mlflow() -> None:
    """A command that only checks data starts without the two."""
    code = "import sys, tasks.runtime.progress; print([name for name in ('prefect', 'mlflow') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
