"""What MLflow records of a finished run, as far as a verification reads it."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from preflow.environment import preflow_home
from preflow.errors import ConfigError
from preflow.specs import STAGES
from preflow.verification.run_checks import RecordedRun
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import CARD, find_run


def recorded_run(run_id: str) -> RecordedRun:
    """A finished pipeline run.

    Args:
        run_id: MLflow's id of the pipeline run.

    Raises:
        ConfigError: There is no such run, or it is no pipeline run.
    """
    store, found = client(), find_run(run_id)
    run = store.get_run(run_id)
    if run.data.tags.get("kind") != "pipeline":
        raise ConfigError(f"run {run_id} is no pipeline run: give the id of the run that has the stages below it")
    mine = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'FINISHED'"
    children = {child.data.tags["stage"]: child.data.tags for child in store.search_runs([found.experiment_id], mine)}
    sources = [json.loads(given.dataset.source) for given in run.inputs.dataset_inputs]
    return RecordedRun(
        run_id=run_id,
        tags=dict(run.data.tags),
        recipe=_text(store, run, "recipe.yaml"),
        card=_text(store, run, CARD),
        data=[(source["uri"], source["digest"]) for source in sources],
        stages={name: dict(children[name]) for name in STAGES if "artifact_path" in children.get(name, {})},
    )


def _text(store: Any, run: Any, name: str) -> str | None:
    """A small file of a run; none where it is gone. A local store that was moved is found below the home folder."""
    moved = preflow_home() / "mlflow" / "artifacts" / run.info.run_id / "artifacts" / name
    parts = urlsplit(run.info.artifact_uri)
    if parts.scheme in ("", "file"):
        local = Path(unquote(parts.path)) / name
        local = local if local.parent.is_dir() else moved
        return local.read_text(encoding="utf-8") if local.is_file() else None
    if name not in {each.path for each in store.list_artifacts(run.info.run_id)}:
        return None
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return Path(store.download_artifacts(run.info.run_id, name)).read_text(encoding="utf-8")
