"""A promotion whose process is killed by SIGKILL between any two writes ends in one consistent state."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.words import ROOT
from tests.fixtures.killed_decisions import COUNT

pytestmark = pytest.mark.slow  # processes, each of which opens a database


def test_a_real_kill_before_any_write_is_finished_or_undone_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-m", "tests.fixtures.killed_decisions"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for number, (ended, found) in enumerate(zip(lines[::2], lines[1::2], strict=True), start=1):
        written = number > 2  # the file of the decision is the second write
        assert ended["ended"] == (signal.SIGKILL if number <= COUNT else 0), number
        assert found["problems"] == [], number
        expected = {"champion": 2, "previous": 1} if written else {"champion": 1, "challenger": 2}
        assert found["aliases"] == expected, number
        assert found["decisions"] == ([1, 2] if written else [1]), "one finished decision"
        undone = ["KILLED"] if number == 2 else []
        assert sorted(found["statuses"]) == sorted(["FINISHED"] * len(found["decisions"]) + undone), number
        assert found["recovered"] == (1 if 1 < number <= COUNT else 0), number
    assert len(lines) == 2 * (COUNT + 1)


def test_what_a_rollback_imports_holds_no_torch_and_no_scipy() -> None:
    """They take seconds, and moving an alias needs neither."""
    check = (
        "import sys, tasks.tracking.registry.rollback, flows.commands.registry.rollback; "
        "print([name for name in ('torch', 'scipy', 'transformers', 'peft', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
