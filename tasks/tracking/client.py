"""The MLflow client of this process, and calls that all modules of this package need.

Calls are few, because each costs 18 ms on SQLite and 100 ms over HTTP.
"""

import functools
import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.environment import mlflow_uri
from preflow.errors import TrackingError
from preflow.redaction import without_login, without_secrets
from tasks.tracking.moved_store import follow_moved_files

#: Settings of MLflow's client while it is only asked whether MLflow is there.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@contextmanager
def without_collections() -> Iterator[None]:
    """Let imports make their objects, which stay, without a search for garbage among them: a sixth of their time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def client() -> Any:
    """An MLflow client for the configured tracking store; a missing SQLite database is created."""
    with without_collections():
        import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # files are small, and bars many
    uri = mlflow_uri()
    if uri.startswith("sqlite:///"):
        _create_database(uri)
    mlflow.set_tracking_uri(uri)  # system metrics take no client
    return mlflow.MlflowClient(tracking_uri=uri)


@functools.cache
def _create_database(uri: str) -> None:
    """Create the tables of an SQLite store, one process at a time: two migrations at once would break each other.

    The files of one that was moved are followed.
    """
    import mlflow

    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"), without_collections():  # the store's modules are imported
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        follow_moved_files(database)


@contextmanager
def ending(end: Callable[[str], None]) -> Iterator[None]:
    """Give a run its final status however the block ends: killed after a signal, failed after an error."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        end(status)


def set_tags(mlflow: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run in one call."""
    from mlflow.entities import RunTag

    mlflow.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def require_mlflow() -> None:
    """Ask MLflow once, in seconds, before a run begins.

    Raises:
        TrackingError: It does not answer, or not to this login.
    """
    from mlflow.exceptions import MlflowException

    store = client()
    before = {name: os.environ.get(name) for name in _IMPATIENT}
    os.environ.update(_IMPATIENT)
    try:
        store.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {without_login(mlflow_uri())} does not answer: {brief(error)}. Start it, or unset "
            "MLFLOW_TRACKING_URI to keep runs in a local database"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def away_is_a_tracking_error() -> Iterator[None]:
    """Let what MLflow's client raises while MLflow is away leave the block as a ``TrackingError``.

    An error of a disk or of a file leaves it as it is: that is no fault of MLflow's.

    Raises:
        TrackingError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, ConnectionError, TimeoutError) as error:
        raise TrackingError(f"MLflow at {without_login(mlflow_uri())} does not answer: {brief(error)}") from None


def brief(error: BaseException) -> str:
    """The reason behind an error of MLflow in a few words, without secrets."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return " ".join(without_secrets(str(cause) or type(cause).__name__).split())[:200]


def prepare_store() -> None:
    """Create the local database where it is missing, so that the UI has a store to open."""
    client().search_experiments(max_results=1)
