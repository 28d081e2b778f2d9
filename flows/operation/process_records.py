"""Which process does which flow run: a file for each, ``PREFLOW_HOME/running/<flow run>.json``, while the run lasts.

A process that is killed leaves its file, so that a worker of this machine can tell that the run does not go on, without
any server.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from preflow.environment import preflow_home
from tasks.tracking.lineage import is_gone, process_tags


@contextmanager
def process_recorded(flow_run_id: str) -> Iterator[None]:
    """Keep the file of a flow run that this process does, until the block ends in order."""
    file = _folder() / f"{flow_run_id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(process_tags()), encoding="utf-8")
    partial.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


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
