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
#: Codes of MLflow's errors that say nothing of what was asked: it cannot be reached, is busy, or has failed.
_AWAY = frozenset(
    {
        *("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"),
        *("REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
    }
)
#: Codes by which it says that a run, a model or an alias is not there.
NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})
#: Codes by which it refuses a login.
_LOGIN = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
#: Characters of an error's text that are shown.
_LONGEST = 200


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
        remedy = ". Start it, or unset MLFLOW_TRACKING_URI to keep runs in a local database"
        raise TrackingError(_refusal(error) or f"{_not_answering(error)}{remedy}") from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def away_is_a_tracking_error() -> Iterator[None]:
    """Let what MLflow's client raises leave the block as a ``TrackingError``: MLflow is away, or refuses.

    An error of a disk or of a file leaves it as it is: that is no fault of MLflow's.

    Raises:
        TrackingError: MLflow does not answer, or answers that it does not do what was asked, and why.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, ConnectionError, TimeoutError) as error:
        raise TrackingError(_refusal(error) or _not_answering(error)) from None


def _not_answering(error: BaseException) -> str:
    return f"MLflow at {without_login(mlflow_uri())} does not answer: {brief(error)}"


def refuses_login(error: BaseException) -> bool:
    """Whether MLflow did not permit what was asked, so that nothing is known of it."""
    return getattr(error, "error_code", None) in _LOGIN


def _refusal(error: BaseException) -> str:
    """What MLflow answered, where it did and refuses what was asked; empty where it is away or has failed itself."""
    code = getattr(error, "error_code", None)
    if code is None or code in _AWAY:
        return ""
    said = " ".join(without_secrets(str(error).removeprefix(f"{code}: ")).split())[:_LONGEST]
    where = f"MLflow at {without_login(mlflow_uri())}"
    if refuses_login(error):
        return (
            f"{where} does not permit this: {said}. Give a login that may do it (MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD)"
        )
    return f"{where} refuses this ({code}): {said}"


def brief(error: BaseException) -> str:
    """The reason behind an error of MLflow in a few words, without secrets."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return " ".join(without_secrets(str(cause) or type(cause).__name__).split())[:_LONGEST]


def prepare_store() -> None:
    """Create the local database where it is missing, so that the UI has a store to open."""
    client().search_experiments(max_results=1)
