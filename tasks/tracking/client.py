"""The MLflow client of this process, and calls that all modules of this package need.

Calls are few, because each costs 18 ms on SQLite and 100 ms over HTTP.
"""

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.environment import mlflow_uri


def client() -> Any:
    """An MLflow client for the configured tracking store; a missing SQLite database is created."""
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = mlflow_uri()
    if uri.startswith("sqlite:///"):
        _create_database(uri)
    mlflow.set_tracking_uri(uri)  # system metrics take no client
    return mlflow.MlflowClient(tracking_uri=uri)


@functools.cache
def _create_database(uri: str) -> None:
    """Create the tables of an SQLite store, one process at a time: two migrations at once would break each other."""
    import mlflow

    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


@contextmanager
def ending(mlflow: Any, run_id: str) -> Iterator[None]:
    """Set a run's final status however the block ends: killed after a signal, failed after an error."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        mlflow.set_terminated(run_id, status)


def set_tags(mlflow: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run in one call."""
    from mlflow.entities import RunTag

    mlflow.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def prepare_store() -> None:
    """Create the local database where it is missing, so that the UI has a store to open."""
    client().search_experiments(max_results=1)
