"""Where a run is: what it has recorded in its outbox and which checkpoints it has, so that faults hit inside a stage.

The outbox holds one line for each event of a run (a stage has begun, metrics of a step, a stage is complete), whether
or not MLflow has it. It is read while it grows, and to its end after it was removed.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from preflow.training.checkpoints import _is_whole
from tests.faults.services import wait_until

Event = dict[str, Any]
#: Optimizer steps after which a training is in its middle.
MIDDLE = 6


class Recording:
    """All events of the runs of a home folder, from the moment on at which this was made."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.events: list[Event] = []
        self._files: dict[tuple[Path, int], IO[str]] = {}
        self._rest: dict[tuple[Path, int], str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Recording":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(0.005):
            for path in (self.home / "outbox").glob("*/events.jsonl"):
                with contextlib.suppress(FileNotFoundError):
                    key = (path, path.stat().st_ino)
                    if key not in self._files:
                        self._files[key] = path.open(encoding="utf-8")
            for key, file in self._files.items():
                text = self._rest.get(key, "") + file.read()
                *lines, self._rest[key] = text.split("\n")
                self.events += [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def begun(self, stage: str) -> list[Event]:
        """The beginnings of a stage, one for each attempt."""
        return [e for e in self.events if e["do"] == "stage" and e["stage"] == stage]

    def is_inside(self, stage: str) -> bool:
        """Whether a stage has begun and is not complete."""
        last = [e["do"] for e in self.events if e.get("stage") == stage and e["do"] in ("stage", "complete", "end")]
        return bool(last) and last[-1] == "stage"

    def steps(self, stage: str) -> list[int]:
        """The optimizer steps of a training as they were recorded, repeated ones too."""
        name = f"{stage}/loss"
        events = [e for e in self.events if e["do"] == "metrics" and e["stage"] == stage]
        return [step for e in events for key, _, step in e["values"] if key == name]


def newest_checkpoint(home: Path, stage: str) -> int:
    """The step of a training's newest whole checkpoint; 0 where it has none."""
    found = [p for p in (home / "store" / stage).glob("*/scratch/checkpoint-*") if _is_whole(p)]
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def _reached(recording: Recording, stage: str) -> bool:
    if not recording.is_inside(stage):
        return False
    trained = stage in ("sft", "dpo")
    return not trained or any((recording.home / "store" / stage).glob(f"*/scratch/checkpoint-{MIDDLE}"))


@contextlib.contextmanager
def held_inside(recording: Recording, stage: str, seconds: float) -> Iterator[psutil.Process]:
    """The run's process, which stands still inside a stage while the block runs.

    Raises:
        AssertionError: The run does not come there.
    """
    wait_until(lambda: _reached(recording, stage), seconds, f"the run does not come into {stage}", pause=0.005)
    process = psutil.Process(int(recording.begun(stage)[-1]["tags"]["pid"]))
    process.suspend()
    try:
        time.sleep(0.05)  # what it wrote before is read
        assert recording.is_inside(stage), f"{stage} was complete before the fault"
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
