"""Whether MLflow takes a run with a file, tried before anything depends on it."""

import tempfile
from pathlib import Path

from preflow.environment import mlflow_uri
from preflow.errors import TrackingError
from preflow.redaction import without_login
from tasks.tracking.client import brief, client

EXPERIMENT = "preflow-doctor"


def try_writing() -> None:
    """Make a run with one artifact in an experiment of its own, and delete it again.

    Raises:
        TrackingError: MLflow takes no run, or not its artifact.
    """
    from mlflow.exceptions import MlflowException

    mlflow, address = client(), without_login(mlflow_uri())
    try:
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found is not None else mlflow.create_experiment(EXPERIMENT)
        run = mlflow.create_run(experiment).info.run_id
    except (MlflowException, OSError) as error:
        raise TrackingError(f"{address} takes no run: {brief(error)}") from None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "doctor.txt"
            file.write_text("written by preflow doctor\n", encoding="utf-8")
            mlflow.log_artifact(run, str(file))
    except (MlflowException, OSError) as error:
        raise TrackingError(f"{address} takes no artifact: {brief(error)}") from None
    finally:
        mlflow.delete_run(run)
