"""MLflow: whether it answers and takes a run with an artifact, and which runs their process has left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.health.check import Check, failed, ok, warning
from preflow.environment import mlflow_uri
from preflow.errors import TrackingError
from preflow.redaction import without_login


def check_mlflow() -> Iterator[Check]:
    """Everything about the tracking store that MLFLOW_TRACKING_URI names, or the local one."""
    from tasks.tracking.client import client, require_mlflow

    address = without_login(mlflow_uri())
    local = Path(address.removeprefix("sqlite:///"))
    if address.startswith("sqlite:///") and not local.is_file():
        yield ok("MLflow", f"{local}: not there yet; the first run makes it")
        return
    try:
        require_mlflow()
    except TrackingError as error:
        yield failed("MLflow", error.message, "start it, or unset MLFLOW_TRACKING_URI")
        return
    store = client()
    yield check_writing(address)
    yield check_dead_runs(store)


def check_writing(address: str) -> Check:
    """A run with one artifact is made and deleted again."""
    from tasks.tracking.trial import try_writing

    try:
        try_writing()
    except TrackingError as error:
        return failed("MLflow", error.message, "see its log; the artifacts' place must be writable for the server")
    return ok("MLflow", f"{address} takes runs and artifacts")


def check_dead_runs(store: Any) -> Check:
    """Runs that MLflow calls running although their process has ended."""
    from tasks.tracking.pipeline_run import dead_runs

    dead = dead_runs(store)
    if dead:
        found = f"{len(dead)} are called running, but their process has ended: {', '.join(sorted(dead)[:3])}"
        return warning("dead runs", found, "the next run closes them; preflow run of the same recipe goes on with one")
    return ok("dead runs", "none")
