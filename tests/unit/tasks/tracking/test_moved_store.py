"""Records of a local MLflow store follow its files, and those of other places stay."""

import shutil
from pathlib import Path

import pytest

from tasks.tracking.client import client
from tasks.tracking.moved_store import follow_moved_files

pytestmark = pytest.mark.slow  # a database of MLflow's own is made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder whose name has to be quoted in an address, with runs in its own place and in two others."""
    home = tmp_path / "old home"
    monkeypatch.setenv("PREFLOW_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    elsewhere = {"own": home / "mlflow" / "artifacts", "given": tmp_path / "given", "gone": tmp_path / "gone"}
    for name, folder in elsewhere.items():
        experiment = client().create_experiment(name, artifact_location=folder.as_uri())
        client().log_text(client().create_run(experiment).info.run_id, name, "kept.txt")
    shutil.rmtree(tmp_path / "gone")
    return home


def places(database: Path) -> dict[str, str]:
    from mlflow import MlflowClient

    asked = MlflowClient(tracking_uri=f"sqlite:///{database}")
    found = {}
    for name in ("own", "given", "gone"):
        experiment = asked.get_experiment_by_name(name)
        assert experiment is not None
        (run,) = asked.search_runs([experiment.experiment_id])
        assert run.info.artifact_uri == f"{experiment.artifact_location}/{run.info.run_id}/artifacts"
        found[name] = experiment.artifact_location
    return found


def test_the_files_of_a_moved_home_are_followed_and_those_elsewhere_are_not(store: Path, tmp_path: Path) -> None:
    before = places(store / "mlflow" / "mlflow.db")
    assert follow_moved_files(store / "mlflow" / "mlflow.db") == [], "nothing was moved"
    assert "old%20home" in before["own"]
    store.rename(tmp_path / "new")
    database = tmp_path / "new" / "mlflow" / "mlflow.db"
    assert follow_moved_files(database) == [before["own"]]
    assert places(database) == {**before, "own": (tmp_path / "new" / "mlflow" / "artifacts").as_uri()}
    assert follow_moved_files(database) == []


def test_a_copy_beside_the_home_that_is_still_there_keeps_its_records(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    database = tmp_path / "copy" / "mlflow" / "mlflow.db"
    before = places(database)
    assert follow_moved_files(database) == []
    assert places(database) == before
