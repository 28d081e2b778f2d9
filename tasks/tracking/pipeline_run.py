"""The parent run in MLflow: one for each pipeline run, in the experiment of the recipe's name."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.environment import mlflow_uri, preflow_home
from preflow.errors import ConfigError
from preflow.models.resolve import ModelRef
from preflow.redaction import without_login
from preflow.specs import ValidateSpec
from tasks.tracking.client import client, ending, set_tags
from tasks.tracking.lineage import is_gone, lineage, parameters, process_tags


class PipelineRun(Frozen):
    """The MLflow run of one pipeline run, as a value that tasks can be given."""

    recipe: str
    """The recipe's name, which is the experiment's."""
    experiment_id: str
    run_id: str


@contextmanager
def pipeline_run(recipe: Recipe, sources: ValidateSpec, flow_run_id: str | None, name: str) -> Iterator[PipelineRun]:
    """The parent run: an unfinished one of the same recipe and data is reopened, else a new one is created.

    Args:
        recipe: The resolved recipe.
        sources: The data sets of the run.
        flow_run_id: Prefect's id of this flow run; a retry reopens its own run.
        name: Name of a new run.

    Raises:
        ConfigError: The experiment was deleted in MLflow.
    """
    mlflow = client()
    tags = lineage(recipe, sources, flow_run_id)
    with FileLock(preflow_home() / "pipeline_run.lock"):  # two starts must not reopen the same run
        experiment = _experiment(mlflow, recipe.name)
        run_id = _unfinished(mlflow, experiment, tags)
        if run_id is None:
            run_id = mlflow.create_run(experiment, tags=tags, run_name=name).info.run_id
            _describe(mlflow, run_id, recipe, sources)
        else:
            mlflow.update_run(run_id, status="RUNNING")
            set_tags(mlflow, run_id, tags)
        _end_abandoned(mlflow, run_id)
    run = PipelineRun(recipe=recipe.name, experiment_id=experiment, run_id=run_id)
    with ending(mlflow, run_id):
        yield run


def _experiment(mlflow: Any, name: str) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        uri = mlflow_uri()
        local = uri.startswith("sqlite:///")
        place = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts") if local else None
        return str(mlflow.create_experiment(name, artifact_location=place and place.as_uri()))
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"the MLflow experiment '{name}' was deleted: restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or give the recipe another name (--set name=...)"
        )
    return str(found.experiment_id)


def _unfinished(mlflow: Any, experiment: str, tags: Mapping[str, str]) -> str | None:
    """The run to reopen: a retry's own, or one whose process is gone."""
    same = f"tags.kind = 'pipeline' and tags.recipe_digest = '{tags['recipe_digest']}'"
    same += f" and tags.data_digest = '{tags['data_digest']}'"
    for run in mlflow.search_runs([experiment], same, order_by=["attributes.start_time DESC"]):
        flow_run = tags.get("prefect_flow_run_id")
        is_retry = flow_run is not None and run.data.tags.get("prefect_flow_run_id") == flow_run
        was_killed = run.info.status == "RUNNING" and is_gone(run.data.tags)
        if is_retry or was_killed or run.info.status == "KILLED":  # its process may still be about to end
            return str(run.info.run_id)
    return None


def _end_abandoned(mlflow: Any, reopened: str) -> None:
    """Mark abandoned runs of this host, and their stages, as killed."""
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    running = f"attributes.status = 'RUNNING' and tags.host = '{process_tags()['host']}'"
    for run in mlflow.search_runs(experiments, running):
        if run.info.run_id != reopened and is_gone(run.data.tags):
            mlflow.set_terminated(run.info.run_id, "KILLED")


def _describe(mlflow: Any, run_id: str, recipe: Recipe, sources: ValidateSpec) -> None:
    """Log a new run's parameters, resolved recipe and data sets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    values = parameters(recipe)
    mlflow.log_batch(run_id, params=[Param(name, value) for name, value in values.items()])
    mlflow.log_dict(run_id, recipe.model_dump(mode="json"), "recipe.yaml")
    names = ("demonstrations", "demonstrations_eval", "preferences", "preferences_eval")
    inputs = [
        DatasetInput(
            Dataset(
                name=Path(source.path).name,
                digest=source.digest[:36],  # MLflow keeps no more
                source_type="local" if Path(source.path).is_absolute() else "hf",
                source=json.dumps({"uri": source.path, "digest": source.digest}),
            ),
            tags=[InputTag("mlflow.data.context", name)],
        )
        for name in names
        for source in getattr(sources, name)
    ]
    mlflow.log_inputs(run_id, datasets=inputs)


def tag_base_model(run: PipelineRun, base: ModelRef) -> None:
    """Tag the pipeline run with the digest of its base weights."""
    set_tags(client(), run.run_id, {"base_model_digest": base.digest})


def log_summary(run: PipelineRun, markdown: str) -> None:
    """Log the run's summary as an artifact of the pipeline run."""
    client().log_text(run.run_id, markdown, "summary.md")


def run_address(run: PipelineRun, server: str) -> str:
    """The address of a pipeline run in the MLflow UI that ``server`` serves."""
    return f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def find_run(run_id: str) -> PipelineRun:
    """A pipeline run by its id.

    Raises:
        ConfigError: MLflow knows no such run.
    """
    from mlflow.exceptions import MlflowException

    store = client()
    try:
        info = store.get_run(run_id).info
    except MlflowException as error:
        raise ConfigError(f"MLflow at {without_login(mlflow_uri())} has no run {run_id}: {error.message}") from error
    name = store.get_experiment(info.experiment_id).name
    return PipelineRun(recipe=name, experiment_id=info.experiment_id, run_id=run_id)
