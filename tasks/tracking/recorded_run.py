"""What MLflow records of a finished run, as far as a verification reads it."""

import json
from typing import Any

from preflow.errors import ConfigError, PromotionError
from preflow.specs import STAGES
from preflow.verification.recorded import RecordedRun
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import find_run
from tasks.tracking.registry.cards import CARD, decisions_on, registered_name, sections_of
from tasks.tracking.run_files import read_text
from tasks.tracking.stage_run import SPECIFICATION


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
    children = {child.data.tags["stage"]: child for child in store.search_runs([found.experiment_id], mine)}
    stages = [name for name in STAGES if name in children and "artifact_path" in children[name].data.tags]
    sources = [json.loads(given.dataset.source) for given in run.inputs.dataset_inputs]
    return RecordedRun(
        run_id=run_id,
        tags=dict(run.data.tags),
        recipe=read_text(run, "recipe.yaml"),
        card=read_text(run, CARD),
        data=[(source["uri"], source["digest"]) for source in sources],
        stages={name: dict(children[name].data.tags) for name in stages},
        later=_later(run),
        specifications={name: _specification(children[name]) for name in stages},
    )


def _later(run: Any) -> str:
    """What the run's card says of the time after it; nothing of decisions that are no chain, which is found by name."""
    model = registered_name(run)
    try:
        decisions = [] if model is None else decisions_on(model)
    except PromotionError:
        decisions = []
    return sections_of(run, decisions)


def _specification(stage: Any) -> Any:
    """What a stage's identity is the digest of; None where none was recorded, the text where it is no JSON."""
    text = read_text(stage, SPECIFICATION)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text
