"""Output of a running stage: progress in the terminal and in Prefect, notes in Prefect's log, metrics in MLflow."""

import contextvars
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger

from expectations.report.summary import finding_rows
from preflow.redaction import without_secrets
from preflow.units import duration
from tasks.runtime.progress import CONSOLE, ProgressBars, ProgressLines, TimeLeft

#: Marks a log record as written for the user.
USER_FACING = {"preflow": True}
_ARTIFACT_SECONDS = 3.0
#: Seconds that a stage's end waits for its last progress to be shown.
_LAST_UPDATE_SECONDS = 2.0


class MetricsSink(Protocol):
    """Where training metrics go."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step."""


class Reporter:
    """The observer of one stage: a context manager, because a progress bar must be removed at the end."""

    def __init__(self, recipe: str, stage: str, sink: MetricsSink | None = None) -> None:
        """Report for a stage of a recipe; metrics go to ``sink``, or nowhere without one."""
        self._stage = stage
        self._sink = sink
        self._bar = ProgressBars(CONSOLE) if CONSOLE.is_terminal else ProgressLines(CONSOLE)
        self._artifact = _ProgressArtifact(f"{recipe}-{stage}") if TaskRunContext.get() else None

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if self._artifact is not None:
            self._artifact.close()

    def progress(self, done: int, total: int, what: str) -> None:
        """Show that ``done`` of ``total`` units of ``what`` are finished."""
        self._bar.show(done, total, what)
        if self._artifact is not None:
            self._artifact.show(done, total, what)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; rows that scoring requested and hit are a table too."""
        if self._sink is not None:
            self._sink.metrics(values, step)
        if self._artifact is not None and any(name.endswith("/rows_asked") for name in values):
            self._artifact.table(values)

    def note(self, message: str) -> None:
        """Log a message for the user."""
        log_user(message if message.startswith(self._stage) else f"{self._stage}: {message}")


class _ProgressArtifact:
    """A progress artifact in Prefect's UI, updated every few seconds in the background.

    A stage does not wait for Prefect: while it is slow or away, only the newest progress waits to be shown.
    """

    def __init__(self, key: str) -> None:
        self._key = artifact_key(key)
        self._id: UUID | None = None
        self._last = 0.0
        self._left = TimeLeft()
        self._newest: tuple[int, int, str] | None = None
        self._changed = threading.Condition()
        self._sender: threading.Thread | None = None

    def table(self, values: Mapping[str, float]) -> None:
        """Show numbers as a table."""
        rows = [{"measure": name, "value": f"{value:,.6g}"} for name, value in values.items()]
        group = artifact_key(next(iter(values)).partition("/")[0])
        try:
            create_table_artifact(
                rows, key=f"{self._key}-{group}", description="Rows requested from the log-prob store"
            )
        except httpx.HTTPError as error:
            log_user(f"a table could not be shown in Prefect: {error}", warning=True)

    def show(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        left = self._left.after(done, total, what, now)
        if done < total and now - self._last < _ARTIFACT_SECONDS:
            return
        self._last = now
        with self._changed:
            self._newest = (done, total, f"{what} {done}/{total}{left}")
            if self._sender is None:
                context = contextvars.copy_context()
                self._sender = threading.Thread(target=context.run, args=(self._deliver,), daemon=True)
                self._sender.start()

    def close(self) -> None:
        """Give the last update a moment."""
        with self._changed:
            self._changed.wait_for(lambda: self._sender is None, _LAST_UPDATE_SECONDS)

    def _deliver(self) -> None:
        """Send what is newest until nothing is."""
        while True:
            with self._changed:
                newest, self._newest = self._newest, None
                if newest is None:
                    self._sender = None
                    self._changed.notify_all()
                    return
            try:
                self._send(*newest)
            except httpx.HTTPError as error:  # training must not fail because its progress could not be shown
                log_user(f"progress could not be shown in Prefect: {error}", warning=True)

    def _send(self, done: int, total: int, text: str) -> None:
        percent = 100.0 * done / max(total, 1)
        if self._id is None:
            created = create_progress_artifact(percent, key=self._key, description=text)
            self._id = cast(UUID, created)  # a coroutine only in asynchronous code
        else:
            update_progress_artifact(self._id, percent, description=text)


def artifact_key(name: str) -> str:
    """A name in the form that Prefect asks of artifact keys: lower case, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def log_user(message: str, *, warning: bool = False) -> None:
    """Log a message for the user: in the run's log in Prefect, and through it on the terminal."""
    inside = TaskRunContext.get() or FlowRunContext.get()
    logger: Any = get_run_logger() if inside else logging.getLogger("preflow")
    logger.log(logging.WARNING if warning else logging.INFO, without_secrets(message), extra=USER_FACING)


@contextmanager
def log_duration(what: str) -> Iterator[None]:
    """Log when something begins, and how long it took at its end."""
    log_user(f"{what}: started")
    begin = time.monotonic()
    yield
    log_user(f"{what}: done in {duration(time.monotonic() - begin)}")


class UserHandler(logging.Handler):
    """Prints messages for the user, and nothing else, beside a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that carries the mark."""
        if getattr(record, "preflow", False):
            style = "yellow" if record.levelno >= logging.WARNING else None
            CONSOLE.print(record.getMessage(), style=style, markup=False)


def to_terminal() -> None:
    """Print messages for the user on this terminal; Prefect's log has all of them as well."""
    handler = UserHandler()
    for name in ("preflow", "prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
    logging.getLogger("preflow").setLevel(logging.INFO)


def show_findings(recipe: str, report: dict[str, Any], page: Path) -> None:
    """What validation found as a table in Prefect; none where it found nothing."""
    rows = finding_rows(report)
    if rows:
        description = f"What data validation found; the whole report: {page}"
        create_table_artifact(rows, key=f"{artifact_key(recipe)}-data", description=description)
