"""What a pipeline run has for MLflow, on disk until it is delivered: in order, without gaps, whatever ends the process.

An outbox is one folder, ``PREFLOW_HOME/outbox/<MLflow id of the pipeline run>``::

    run.json       the pipeline run, and the address of its MLflow
    events.jsonl   one event a line, appended
    delivered      the number of the first event that MLflow does not have
    lock           held by the process that delivers
    files/         copies of files that do not stay where they were
"""

import json
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from preflow.environment import preflow_home

#: What happened in a run, as JSON: ``{"do": "metrics", ...}``.
Event = dict[str, Any]


def outboxes_folder() -> Path:
    """Where outboxes are."""
    return preflow_home() / "outbox"


class Outbox:
    """The events of one pipeline run that wait for delivery, by the one process that may deliver them."""

    def __init__(self, folder: Path) -> None:
        """Open or make the outbox; ``lock`` must be held.

        Args:
            folder: Its folder.
        """
        self.folder = folder
        self._events = folder / "events.jsonl"
        self._delivered = folder / "delivered"
        self._first = int(self._delivered.read_text(encoding="ascii")) if self._delivered.exists() else 0
        self.waiting = deque(self._read())
        self._next = self.waiting[-1]["number"] + 1 if self.waiting else self._first
        self._copies = 0

    def _read(self) -> Iterator[Event]:
        """Events that are not delivered; a last line that a kill cut off was never an event."""
        if not self._events.exists():
            return
        with self._events.open("rb+") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                event = json.loads(line)
                if event["number"] >= self._first:
                    yield event
            file.truncate(whole)

    def append(self, event: Event) -> None:
        """Keep an event on disk until it is delivered."""
        numbered = {**event, "number": self._next}
        self._next += 1  # a signal may end this anywhere: numbers are not used twice
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbered) + "\n")
        self.waiting.append(numbered)

    def delivered(self) -> None:
        """Count the first waiting event as delivered."""
        self._first = self.waiting.popleft()["number"] + 1
        partial = self._delivered.with_suffix(".partial")
        partial.write_text(str(self._first), encoding="ascii")
        partial.replace(self._delivered)

    def copy(self, folder: Path) -> Path:
        """Copy the files of a folder that is about to go, without its subfolders; the folder of the copies."""
        self._copies += 1
        kept = self.folder / "files" / f"{self._next}-{self._copies}"
        kept.mkdir(parents=True)
        for path in folder.iterdir():
            if path.is_file():
                shutil.copy2(path, kept)
        return kept

    def describe(self, run: Mapping[str, str]) -> None:
        """Note which run the events belong to."""
        (self.folder / "run.json").write_text(json.dumps(dict(run)), encoding="utf-8")

    def remove(self) -> None:
        """Remove an outbox of which all is delivered."""
        shutil.rmtree(self.folder)


def lock(folder: Path) -> FileLock:
    """The lock of an outbox; the system frees it when its process ends, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock")


def left_behind() -> Iterator[tuple[Path, dict[str, str]]]:
    """Outboxes whose process has ended, each locked while the caller has it, with the run that it is of."""
    for described in sorted(outboxes_folder().glob("*/run.json"), key=lambda path: path.stat().st_mtime):
        held = lock(described.parent)
        try:
            held.acquire(timeout=0)
        except Timeout:  # its process is alive
            continue
        try:
            if described.exists():
                yield described.parent, json.loads(described.read_text(encoding="utf-8"))
        finally:
            held.release()
