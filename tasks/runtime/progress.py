"""Progress on the terminal: bars, or plain lines in a log file. It imports neither Prefect nor MLflow."""

import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from preflow.console import TextConsole
from preflow.observer import Silent
from preflow.units import duration

#: Messages for the user: standard error. Results go to standard output.
CONSOLE = TextConsole(stderr=True)
_LINE_SECONDS = 10.0


class ProgressBars:
    """Progress bars on a terminal, one for each kind of unit; none where the console is no terminal."""

    def __init__(self, console: Console, *, transient: bool = False) -> None:
        """Draw on a console; ``transient`` bars are removed at the end."""
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=transient,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int, what: str) -> None:
        """Draw ``done`` of ``total`` units of ``what``."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


class ProgressObserver(Silent):
    """The observer of work outside a stage: it shows progress and drops everything else."""

    def __init__(self, bars: ProgressBars) -> None:
        """Draw on bars that are shown already."""
        self._bars = bars

    def progress(self, done: int, total: int, what: str) -> None:
        """Show that ``done`` of ``total`` units of ``what`` are finished."""
        self._bars.show(done, total, what)


class ProgressLines:
    """One plain line every few seconds, for a log file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what = ""
        self._last = 0.0
        self._line = ""
        self._left = TimeLeft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, done: int, total: int, what: str) -> None:
        """Print the line if it is new work, or if the last one is old enough."""
        now = time.monotonic()
        left = self._left.after(done, total, what, now)
        if what != self._what or done >= total or now - self._last >= _LINE_SECONDS:
            self._what, self._last = what, now
            line = f"  {what} {done}/{total}{left}"
            if line != self._line:
                self._console.print(line, markup=False)
            self._line = line


class TimeLeft:
    """Estimates how long some work will still take, from its pace so far."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._begin = (0.0, 0)

    def after(self, done: int, total: int, what: str, now: float) -> str:
        """A text to put behind ``done/total``; empty at the start and at the end.

        Args:
            done: Units finished.
            total: Units in all.
            what: What they are; the pace is measured from the first call for it.
            now: A clock that only goes forward, in seconds.
        """
        if what != self._what or done < self._begin[1]:
            self._what, self._begin = what, (now, done)
        seconds, units = now - self._begin[0], done - self._begin[1]
        if units <= 0 or done >= total:
            return ""
        return f", {duration(seconds / units * (total - done))} left"
