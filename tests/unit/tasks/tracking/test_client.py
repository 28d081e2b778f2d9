"""The MLflow client, on a store that does not exist yet."""

import contextlib
import errno
import gc
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException

from preflow.errors import TrackingError
from tasks.tracking.client import away_is_a_tracking_error, without_collections

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


@pytest.mark.slow
def test_mlflow_is_imported_without_a_search_for_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its modules' imports is interrupted by a collection, and collections are on again afterwards."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:9/{tmp_path.name}")
    code = (
        "import gc\n"
        "from tasks.tracking.client import client\n"
        "begun = []\n"
        "gc.callbacks.append(lambda phase, info: begun.append(info['generation']))\n"
        "client()\n"
        "found = len(begun)\n"
        "assert gc.isenabled()\n"
        "print(found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 20, "hundreds without"


def test_collections_are_on_again_after_an_error_and_stay_off_where_they_were() -> None:
    with contextlib.suppress(KeyError), without_collections():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "raised",
    [OSError(errno.ENOSPC, "No space left on device"), FileNotFoundError("weights"), PermissionError("store")],
    ids=["full disk", "no file", "no permission"],
)
def test_an_error_of_a_disk_is_not_called_an_mlflow_that_does_not_answer(raised: OSError) -> None:
    with pytest.raises(OSError) as caught, away_is_a_tracking_error():  # noqa: PT011 - the very object is compared
        raise raised
    assert caught.value is raised


@pytest.mark.parametrize(
    "raised",
    [ConnectionRefusedError("refused"), TimeoutError("late"), requests.ConnectionError("gone"), MlflowException("500")],
    ids=["refused", "late", "gone", "an error of MLflow's"],
)
def test_an_mlflow_that_is_away_is_called_that(raised: Exception) -> None:
    with pytest.raises(TrackingError, match="does not answer"), away_is_a_tracking_error():
        raise raised
