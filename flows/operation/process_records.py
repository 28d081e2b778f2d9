"""Which process does which flow run: a file for each, ``PREFLOW_HOME/running/<flow run>.json``, while the run lasts.

A process that is killed leaves its file, so that a worker of this machine can tell that the run does not go on, without
any server. While a run's process still imports its libraries it has no file of its own: the worker writes it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from preflow.environment import preflow_home
from tasks.tracking.lineage import is_gone, process_tags

_STARTING = "starting"


@contextmanager
def process_recorded(flow_run_id: str) -> Iterator[None]:
    """Keep the file of a flow run that this process does, until the block ends in order."""
    file = _folder() / f"{flow_run_id}.json"
    _write(file.with_suffix(".partial"), process_tags()).replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def record_starting() -> None:
    """Write the file of each run whose process was started and has not written its own."""
    for process, flow_run_id in flow_run_processes():
        file = _folder() / f"{flow_run_id}.json"
        if file.exists():
            continue
        with suppress(psutil.NoSuchProcess, FileExistsError):  # it has just ended, or just written its own
            partial = _write(file.with_suffix(".starting"), {**process_tags(process), _STARTING: "true"})
            os.link(partial, file)  # never over a file that is there
        file.with_suffix(".starting").unlink(missing_ok=True)


def _write(partial: Path, tags: dict[str, str]) -> Path:
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(tags), encoding="utf-8")
    return partial


def was_starting(flow_run_id: str) -> bool:
    """Whether a run with a file had not begun yet: its process still imported its libraries."""
    file = _folder() / f"{flow_run_id}.json"
    return file.exists() and _STARTING in json.loads(file.read_text(encoding="utf-8"))


def killed_runs() -> list[str]:
    """Flow runs whose process was killed."""
    records = sorted(_folder().glob("*.json"))
    return [file.stem for file in records if is_gone(json.loads(file.read_text(encoding="utf-8")))]


def forget(flow_run_id: str) -> None:
    """Remove the file of a run that is closed."""
    (_folder() / f"{flow_run_id}.json").unlink(missing_ok=True)


def flow_run_processes() -> Iterator[tuple[psutil.Process, str]]:
    """Processes of this machine that do flow runs of this home folder, or started them, each with the run's id."""
    home = str(preflow_home())
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            ended = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # not ours to look at, or just gone
            continue
        flow_run_id = environment.get("PREFECT__FLOW_RUN_ID")
        if flow_run_id and not ended and environment.get("PREFLOW_HOME") == home:
            yield process, flow_run_id


def orphans() -> list[psutil.Process]:
    """The first process of each flow run whose worker was killed; it goes on by itself."""
    found = dict(flow_run_processes())
    return [process for process in found if not found.keys() & set(_parents(process)) and not _has_worker(process)]


def _has_worker(process: psutil.Process) -> bool:
    return any("worker" in _command(parent) for parent in _parents(process))


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.parents())
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _folder() -> Path:
    return preflow_home() / "running"
