"""An MLflow that is away, takes no artifact, or holds runs of dead processes is a line with its remedy."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tasks.tracking.client
import tasks.tracking.trial
from flows.health.check import Level
from flows.health.mlflow_store import check_dead_runs, check_mlflow
from preflow.errors import TrackingError
from tasks.tracking.lineage import process_tags


def test_a_local_database_that_is_not_there_yet_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    (check,) = check_mlflow()
    assert check.level is Level.ok
    assert not (tmp_path / "mlflow").exists(), "nothing is made"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with no runs that answers and takes everything."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    deleted: list[str] = []
    store: Any = SimpleNamespace(
        runs=[],
        deleted=deleted,
        search_experiments=lambda **_: [SimpleNamespace(experiment_id="1")],
        search_runs=lambda *_: store.runs,
        get_experiment_by_name=lambda _: SimpleNamespace(experiment_id="1"),
        create_run=lambda _: SimpleNamespace(info=SimpleNamespace(run_id="trial")),
        log_artifact=lambda run, file: None,
        delete_run=deleted.append,
    )
    monkeypatch.setattr(tasks.tracking.client, "client", lambda: store)
    monkeypatch.setattr(tasks.tracking.trial, "client", lambda: store)
    return store


def test_a_server_that_takes_runs_and_artifacts_is_fine_and_keeps_none(server: Any) -> None:
    assert [check.level for check in check_mlflow()] == [Level.ok, Level.ok]
    assert server.deleted == ["trial"]


def test_a_server_that_is_away_is_one_line(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise TrackingError("MLflow at http://127.0.0.1:5000 does not answer: Connection refused")

    monkeypatch.setattr(tasks.tracking.client, "require_mlflow", away)
    (check,) = check_mlflow()
    assert check.level is Level.failed
    assert "Connection refused" in check.found
    assert "preflow explain" not in check.found


def test_artifacts_that_are_refused_fail_and_the_trial_is_deleted(server: Any) -> None:
    def refuse(*_: str) -> None:
        raise OSError(30, "Read-only file system")

    server.log_artifact = refuse
    check = next(iter(check_mlflow()))
    assert check.level is Level.failed
    assert "takes no artifact" in check.found
    assert "Read-only file system" in check.found
    assert server.deleted == ["trial"]


def test_runs_whose_process_has_ended_are_counted(server: Any) -> None:
    alive = process_tags()
    dead = {**alive, "pid": "1", "process_started": "2001-01-01T00:00:00.000+00:00"}
    server.runs = [
        SimpleNamespace(info=SimpleNamespace(run_id=name), data=SimpleNamespace(tags=tags))
        for name, tags in (("alive", alive), ("dead", dead))
    ]
    check = check_dead_runs(server)
    assert check.level is Level.warning
    assert "1 are called running" in check.found
    assert ": dead" in check.found
