"""Which process does which flow run, and what a killed process and a killed worker leave."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.operation.process_records import (
    flow_run_processes,
    forget,
    killed_runs,
    orphans,
    process_recorded,
    record_starting,
    was_starting,
)
from tasks.tracking.lineage import process_tags

SLEEP = ["-c", "import sys; print('there', flush=True); sys.stdin.read()"]
#: Starts the same again, as Prefect's runner starts the process of a run.
NESTED = ["-c", "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])", *SLEEP]


def test_a_run_is_recorded_while_it_lasts(home: Path) -> None:
    with process_recorded("one"):
        assert json.loads((home / "running" / "one.json").read_text()) == process_tags()
        assert killed_runs() == []
    assert not (home / "running" / "one.json").exists()


def test_a_run_that_fails_in_order_leaves_no_record() -> None:
    with pytest.raises(ZeroDivisionError), process_recorded("one"):
        _ = 1 / 0
    assert killed_runs() == []


def test_a_process_that_is_gone_has_left_its_record(home: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with process_recorded("alive"):
        record = home / "running" / "killed.json"
        record.write_text(json.dumps({**process_tags(), "pid": str(ended.pid)}))
        (home / "running" / "elsewhere.json").write_text(json.dumps({**process_tags(), "host": "another"}))
        assert killed_runs() == ["killed"]
        forget("killed")
        assert killed_runs() == []


@pytest.fixture
def started(home: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """A process of run one, one of run two that starts another, one of a worker, and one of another home folder."""
    own = {**os.environ, "PREFLOW_HOME": str(home)}
    commands: list[tuple[list[str], dict[str, str]]] = [
        (SLEEP, {**own, "PREFECT__FLOW_RUN_ID": "one"}),
        (NESTED, {**own, "PREFECT__FLOW_RUN_ID": "two"}),
        (
            ["-c", "import os; os.environ['PREFECT__FLOW_RUN_ID'] = 'three'\n" + NESTED[1], *SLEEP, "worker"],
            {**os.environ, "PREFLOW_HOME": str(home)},
        ),
        (SLEEP, {**own, "PREFLOW_HOME": "/another", "PREFECT__FLOW_RUN_ID": "four"}),
    ]
    with_pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    made = [
        subprocess.Popen([sys.executable, *command], env=environment, **with_pipes)  # type: ignore[call-overload]
        for command, environment in commands
    ]
    for process in made:
        assert process.stdout.readline() == "there\n"
    yield made
    for process in made:
        process.communicate()


@pytest.mark.slow
def test_runs_without_a_worker_are_found_by_their_first_process(started: list["subprocess.Popen[str]"]) -> None:
    one, two, three, _ = started
    (of_the_worker,) = psutil.Process(three.pid).children()
    (second,) = psutil.Process(two.pid).children()
    found = {process.pid: run for process, run in flow_run_processes()}
    assert found == {one.pid: "one", two.pid: "two", second.pid: "two", of_the_worker.pid: "three"}
    assert {process.pid for process in orphans()} == {one.pid, two.pid}


@pytest.mark.slow
def test_a_run_that_starts_is_recorded_by_the_worker(started: list["subprocess.Popen[str]"], home: Path) -> None:
    record_starting()
    assert was_starting("one")
    assert not (home / "running" / "four.json").exists(), "a run of another home folder"
    assert killed_runs() == []
    started[0].kill()
    started[0].wait()
    assert killed_runs() == ["one"]
    assert sorted(path.name for path in (home / "running").iterdir()) == ["one.json", "three.json", "two.json"]


@pytest.mark.slow
def test_a_run_that_has_begun_keeps_its_own_record(started: list["subprocess.Popen[str]"], home: Path) -> None:
    with process_recorded("one"):
        record_starting()
        assert not was_starting("one")
        assert json.loads((home / "running" / "one.json").read_text()) == process_tags()
    assert not was_starting("one")
    record_starting()
    with process_recorded("one"):
        assert not was_starting("one")
