"""The parent run in MLflow: one for each pipeline run, in the experiment of the recipe's name."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.environment import mlflow_uri, preflow_home
from preflow.errors import ConfigError, TrackingError
from preflow.models.resolve import ModelRef
from preflow.redaction import redacted_errors, without_login
from preflow.specs import ValidateSpec
from tasks.tracking.client import NOT_THERE, brief, client, ending, require_mlflow, set_tags
from tasks.tracking.delivery import Say, deliver_left_behind, delivering, delivery_of, log_message
from tasks.tracking.lineage import is_gone, lineage, parameters
from tasks.tracking.registry.cards import CARD
from tasks.tracking.registry.package import Candidate


class PipelineRun(Frozen):
    """The MLflow run of one pipeline run, as a value that tasks can be given."""

    recipe: str
    """The recipe's name, which is the experiment's."""
    experiment_id: str
    run_id: str
    part: str = ""
    """Before the names of stages that run several times in one pipeline run: ``round-1``."""

    def part_of(self, part: str) -> "PipelineRun":
        """The same run for stages that run once more in it, under names of their own."""
        return self.model_copy(update={"recipe": f"{self.recipe}-{part}", "part": part})


@contextmanager
def pipeline_run(
    recipe: Recipe,
    sources: ValidateSpec,
    flow_run_id: str | None,
    name: str,
    say: Say = log_message,
    dead: Callable[[set[str]], None] = lambda ids: None,
    kind: str = "pipeline",
) -> Iterator[PipelineRun]:
    """The parent run: an unfinished one of the same recipe and data is reopened, else a new one is created.

    Args:
        recipe: The resolved recipe.
        sources: The data sets of the run.
        flow_run_id: Prefect's id of this flow run; a retry reopens its own run.
        name: Name of a new run.
        say: Tells the user that MLflow is away, and what was delivered late.
        dead: Given Prefect's ids of flow runs whose process is gone.
        kind: Its tag: a ``pipeline`` makes and evaluates a model, and is what commands find by a recipe's name.

    Raises:
        ConfigError: The experiment was deleted in MLflow.
        TrackingError: MLflow does not answer, or does not take files.
    """
    with redacted_errors():
        require_mlflow()
        deliver_left_behind(say)
        run, gone = _open(recipe, sources, flow_run_id, name, kind)
        dead(gone)
        with (
            delivering(run.experiment_id, run.run_id, say) as delivery,
            ending(lambda status: delivery.put("end", stage=None, status=status)),
        ):
            yield run


def _open(
    recipe: Recipe, sources: ValidateSpec, flow_run_id: str | None, name: str, kind: str
) -> tuple[PipelineRun, set[str]]:
    """Reopen or create the run, and close those of dead processes; Prefect's ids of the flow runs of those."""
    mlflow = client()
    tags = {**lineage(recipe, sources, flow_run_id), "kind": kind}
    with FileLock(preflow_home() / "pipeline_run.lock"):  # two starts must not reopen the same run
        experiment = make_experiment(mlflow, recipe.name)
        run_id = _unfinished(mlflow, experiment, tags)
        if run_id is None:
            run_id = mlflow.create_run(experiment, tags=tags, run_name=name).info.run_id
            with _described(mlflow, run_id):
                _describe(mlflow, run_id, recipe, sources)
        else:
            mlflow.update_run(run_id, status="RUNNING")
            set_tags(mlflow, run_id, tags)
        gone = _end_abandoned(mlflow, run_id)
    return PipelineRun(recipe=recipe.name, experiment_id=experiment, run_id=run_id), gone


def make_experiment(mlflow: Any, name: str) -> str:
    """MLflow's id of an experiment, made where it is missing.

    Raises:
        ConfigError: It was deleted in MLflow.
    """
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
    same = f"tags.kind = '{tags['kind']}' and tags.recipe_digest = '{tags['recipe_digest']}'"
    same += f" and tags.data_digest = '{tags['data_digest']}'"
    for run in mlflow.search_runs([experiment], same, order_by=["attributes.start_time DESC"]):
        flow_run = tags.get("prefect_flow_run_id")
        is_retry = flow_run is not None and run.data.tags.get("prefect_flow_run_id") == flow_run
        was_killed = run.info.status == "RUNNING" and is_gone(run.data.tags)
        if is_retry or was_killed or run.info.status == "KILLED":  # its process may still be about to end
            return str(run.info.run_id)
    return None


@contextmanager
def _described(mlflow: Any, run_id: str) -> Iterator[None]:
    """Files that MLflow does not take end the start: nothing has been computed yet."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        mlflow.set_terminated(run_id, "FAILED")
        raise TrackingError(
            f"MLflow at {without_login(mlflow_uri())} does not take a run's files: {brief(error)}. "
            "Make the place of its artifacts writable"
        ) from None


def _end_abandoned(mlflow: Any, reopened: str) -> set[str]:
    """Mark runs whose process is gone, and their stages, as killed; Prefect's ids of their flow runs."""
    abandoned = {run_id: flow_run for run_id, flow_run in dead_runs(mlflow).items() if run_id != reopened}
    end_runs(mlflow, abandoned)
    return {flow_run for flow_run in abandoned.values() if flow_run is not None}


def end_runs(mlflow: Any, run_ids: Iterable[str]) -> None:
    """Mark runs of dead processes as killed."""
    for run_id in run_ids:
        mlflow.set_terminated(run_id, "KILLED")


def dead_runs(mlflow: Any) -> dict[str, str | None]:
    """Runs, and stages of them, that are called running although their process is gone: id to that of the flow run."""
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    running = {run.info.run_id: run for run in mlflow.search_runs(experiments, "attributes.status = 'RUNNING'")}
    found = {}
    for run_id, run in running.items():
        tags = run.data.tags
        if tags.get("kind") == "decision":  # finished or undone by the next decision on the same model
            continue
        parent = running.get(tags.get("mlflow.parentRunId", ""))
        if is_gone({**tags, **(_heartbeat_of(parent) if parent else {})}):
            found[run_id] = tags.get("prefect_flow_run_id")
    return found


def _heartbeat_of(parent: Any) -> dict[str, str]:
    """A stage has the heartbeat of its pipeline run."""
    return {name: value for name, value in parent.data.tags.items() if name == "heartbeat"}


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
    delivery_of(run.run_id).put("tags", tags={"base_model_digest": base.digest})


def register(run: PipelineRun, candidate: Candidate) -> None:
    """Register the run's model once MLflow takes it."""
    delivery_of(run.run_id).put("register", candidate=candidate.model_dump(mode="json"))


def log_summary(run: PipelineRun, markdown: str) -> None:
    """Log the run's summary as an artifact of the pipeline run."""
    delivery_of(run.run_id).put("text", name="summary.md", text=markdown)


def log_round(run: PipelineRun, values: Mapping[str, float], number: int) -> None:
    """Log the measures of one round on the pipeline run; the step is the round."""
    delivery_of(run.run_id).put("round", values=dict(values), step=number)


def log_card(run: PipelineRun, text: str) -> None:
    """Log the model card of the run's result."""
    delivery_of(run.run_id).put("text", name=CARD, text=text)


def log_diagnosis(run: PipelineRun, description: str, findings: list[dict[str, Any]]) -> None:
    """Log what the run's measurements show as an artifact, and as the description that MLflow's page of it shows."""
    delivery = delivery_of(run.run_id)
    delivery.put("text", name="diagnosis.json", text=json.dumps(findings, indent=1, ensure_ascii=False))
    delivery.put("tags", tags={"mlflow.note.content": description})


def tracked_resources(run: PipelineRun) -> dict[str, float]:
    """Memory in GiB and seconds of each stage of a run under way; empty while MLflow does not answer.

    No artifact has these, since the same work would then give other bytes each time.
    """
    if delivery_of(run.run_id).settle():
        return {}
    mine = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    found = client().search_runs([run.experiment_id], mine)
    return {
        name: float(value)
        for child in found
        for name, value in child.data.metrics.items()
        if "/memory_" in name or name.endswith("/work_seconds")
    }


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
        if error.error_code not in NOT_THERE:
            raise
        raise ConfigError(f"MLflow at {without_login(mlflow_uri())} has no run {run_id}: {error.message}") from error
    name = store.get_experiment(info.experiment_id).name
    return PipelineRun(recipe=name, experiment_id=info.experiment_id, run_id=run_id)
