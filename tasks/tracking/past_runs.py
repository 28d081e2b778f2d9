"""Finished runs: found in MLflow, with the artifacts of their stages."""

from typing import Self

import yaml

from preflow.artifacts import Artifact, verify
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.environment import mlflow_uri
from preflow.errors import ConfigError
from preflow.redaction import without_login
from preflow.specs import STAGES
from preflow.verification.recorded import place_of
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import find_run
from tasks.tracking.run_files import read_text


class PastRun(Frozen):
    """A finished pipeline run."""

    run_id: str
    """Its id in MLflow."""
    recipe: Recipe
    """Its resolved recipe."""
    artifacts: dict[str, Artifact]
    """Artifacts by stage, each verified."""

    def evaluated_by(self, asked: Recipe) -> Self:
        """The run as a recipe evaluates it now: by its settings of the evaluation, and the seed of its sampling."""
        changed = self.recipe.model_copy(update={"evaluation": asked.evaluation, "seed": asked.seed})
        return self.model_copy(update={"recipe": changed})


def past_run(name: str, run_id: str | None = None) -> PastRun:
    """A finished pipeline run, found by its id, or the latest of a recipe.

    Args:
        name: The recipe's name.
        run_id: MLflow's id of the pipeline run; the latest where not given.

    Raises:
        ConfigError: There is no such run.
        ArtifactError: The artifact of a stage is missing or damaged.
    """
    store, finished = client(), "attributes.status = 'FINISHED'"
    if run_id is None:
        experiment = store.get_experiment_by_name(name)
        pipelines = f"tags.kind = 'pipeline' and {finished}"
        order = ["attributes.start_time DESC"]
        found = experiment and store.search_runs([experiment.experiment_id], pipelines, max_results=1, order_by=order)
        if not found:
            raise ConfigError(
                f"MLflow at {without_login(mlflow_uri())} has no finished run of the recipe '{name}': run it first "
                "(preflow run RECIPE), or name a run with --run"
            )
        run_id = str(found[0].info.run_id)
    experiment_id, text = find_run(run_id).experiment_id, read_text(store.get_run(run_id), "recipe.yaml")
    stages = store.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}' and {finished}")
    paths = {stage.data.tags["stage"]: place_of(stage.data.tags["artifact_path"]) for stage in stages}
    if not paths:
        raise ConfigError(f"run {run_id} has no finished stage: expected the id of a pipeline run, not of a stage")
    if text is None:
        raise ConfigError(f"run {run_id} has no recipe.yaml in MLflow any more: start its recipe again")
    wanted = {stage: path for stage, path in paths.items() if stage in STAGES and STAGES[stage].read_later}
    return PastRun(
        run_id=run_id,
        recipe=Recipe.model_validate(yaml.safe_load(text)),
        artifacts={stage: verify(path) for stage, path in wanted.items()},
    )


def runs_that_made(digest: str, run_id: str) -> list[str]:
    """Finished pipeline runs that made one model, the newest first: a run that finds it computed has made it, too.

    Args:
        digest: Of the artifact of the stage that made the model.
        run_id: A run that made it; the last where MLflow knows of no other.
    """
    store = client()
    made = f"tags.artifact_digest = '{digest}' and attributes.status = 'FINISHED'"
    stages = store.search_runs([find_run(run_id).experiment_id], made, order_by=["attributes.start_time DESC"])
    parents = [stage.data.tags.get("mlflow.parentRunId") for stage in stages]
    runs = [store.get_run(parent).info for parent in dict.fromkeys(parents) if parent is not None]
    whole = [run.run_id for run in runs if (run.status, run.lifecycle_stage) == ("FINISHED", "active")]
    return list(dict.fromkeys([*whole, run_id]))


def experiment_of(name: str) -> str:
    """MLflow's id of a recipe's experiment.

    Raises:
        ConfigError: The recipe never ran.
    """
    found = client().get_experiment_by_name(name)
    if found is None:
        raise ConfigError(f"MLflow at {without_login(mlflow_uri())} has no run of the recipe '{name}': run it first")
    return str(found.experiment_id)


def log_merge_error(run: PastRun, merge_error: float) -> None:
    """Record how far an exported model is from the trained one."""
    client().log_metric(run.run_id, "export/merge_error", merge_error)
