"""The MLflow client, on a store that does not exist yet."""

import subprocess
import sys
from pathlib import Path

import pytest

FIRST_USE = "from tasks.tracking.client import client; print(client().create_experiment('{name}'))"


@pytest.mark.slow
def test_two_first_runs_at_once_create_the_database_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock both migrate the same SQLite file, and both fail."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/mlflow.db")
    starts = [
        subprocess.Popen([sys.executable, "-c", FIRST_USE.format(name=name)], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    endings = [(start.communicate()[1], start.returncode) for start in starts]
    assert [code for _, code in endings] == [0, 0], "\n".join(errors for errors, _ in endings)
