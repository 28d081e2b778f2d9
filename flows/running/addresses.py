"""Where the two user interfaces are, or will be once ``preflow ui`` runs."""

import os

from preflow.environment import mlflow_uri
from preflow.redaction import without_login

HOST = "127.0.0.1"
MLFLOW_PORT = 5000
PREFECT_PORT = 4200


def mlflow_server() -> str | None:
    """The MLflow server that is configured; none where runs go to a local database."""
    uri = mlflow_uri()
    return without_login(uri).rstrip("/") if uri.startswith(("http://", "https://")) else None


def mlflow_address() -> str:
    """Where a browser finds the MLflow UI.

    ``PREFLOW_MLFLOW_UI`` where set (in containers the server has another name than outside), else the configured
    server, else the local one that ``flows.ui`` starts.
    """
    named = os.environ.get("PREFLOW_MLFLOW_UI", "").rstrip("/")
    return named or mlflow_server() or f"http://{HOST}:{MLFLOW_PORT}"


def prefect_server() -> str | None:
    """The UI of the Prefect server that is configured; none where flows run embedded."""
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    return None if api is None else str(api).rstrip("/").removesuffix("/api")
