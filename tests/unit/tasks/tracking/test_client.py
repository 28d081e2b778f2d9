"""The MLflow client, on a store that does not exist yet."""

import contextlib
import errno
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from preflow.errors import TrackingError
from tasks.tracking import evaluated_runs, pipeline_run
from tasks.tracking.client import away_is_a_tracking_error, without_collections
from tasks.tracking.registry import integrity
from tasks.tracking.registry.versions import Version

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


def answered(code: str, message: str) -> MlflowException:
    """What MLflow's client makes of a server's answer."""
    return RestException({"error_code": code, "message": message})  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("PERMISSION_DENIED", "does not permit this: what MLflow said. Give a login that may do it"),
        ("UNAUTHENTICATED", "does not permit this: what MLflow said. Give a login that may do it"),
        ("RESOURCE_DOES_NOT_EXIST", "refuses this (RESOURCE_DOES_NOT_EXIST): what MLflow said"),
        ("INVALID_PARAMETER_VALUE", "refuses this (INVALID_PARAMETER_VALUE): what MLflow said"),
    ],
)
def test_an_mlflow_that_refuses_is_not_called_away(code: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have caught an error of its database, which is not what is shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:s3cret@mlflow.example")

    def refuse() -> None:
        try:
            raise KeyError("what is behind it")
        except KeyError as error:
            raise answered(code, "what MLflow said") from error

    with pytest.raises(TrackingError) as caught, away_is_a_tracking_error():
        refuse()
    text = caught.value.message
    assert "https://mlflow.example " in text
    assert said in text
    assert "does not answer" not in text
    assert "behind" not in text


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_an_mlflow_that_failed_or_is_busy_is_called_one_that_does_not_answer(code: str) -> None:
    with pytest.raises(TrackingError, match="does not answer"), away_is_a_tracking_error():
        raise answered(code, "later")


@pytest.mark.slow
def test_a_run_a_champion_and_files_that_one_may_not_see_are_not_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Forbidding:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def refuse(*given: object, **named: object) -> None:
                raise answered("PERMISSION_DENIED", "not yours")

            return refuse

    for module in (pipeline_run, evaluated_runs, integrity):
        monkeypatch.setattr(module, "client", Forbidding)
    version = Version(number=1, run_id="r", artifact_digest="d", stage="dpo", created=0)
    asked: list[Callable[[], object]] = [
        lambda: pipeline_run.find_run("r"),
        lambda: evaluated_runs.champion_run("demo"),
        lambda: integrity.fetch("demo", version, tmp_path),
    ]
    for ask in asked:
        with pytest.raises(TrackingError, match="does not permit this: not yours"), away_is_a_tracking_error():
            ask()
