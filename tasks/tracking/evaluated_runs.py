"""Finished runs with what their evaluations kept, for comparing them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from preflow.artifacts import MANIFEST, Artifact, verify
from preflow.comparison.kept_run import KeptRun
from preflow.environment import mlflow_uri
from preflow.errors import ArtifactError, ConfigError, PromotionError
from preflow.redaction import without_login
from preflow.verification.recorded import place_of
from tasks.tracking.client import NOT_THERE, client
from tasks.tracking.pipeline_run import find_run
from tasks.tracking.registry.cards import decisions_on, registered_name, sections_of
from tasks.tracking.run_files import keep_file, local_folder, read_text

CHAMPION = "champion"
_FINISHED = "attributes.status = 'FINISHED'"


def evaluated_runs(name: str, run_ids: Sequence[str], last: int) -> tuple[list[KeptRun], list[dict[str, str]]]:
    """Finished runs of a recipe, the newest first, and those that cannot be read.

    Args:
        name: The recipe's name.
        run_ids: MLflow ids of pipeline runs, or the beginnings of ids; the ``last`` newest ones where none are given.
        last: How many of the newest.

    Returns:
        The runs, and the ``name`` and the ``reason`` of each that was deleted or whose files are missing or damaged.

    Raises:
        ConfigError: There is no such run.
        ArtifactError: None of them can be read; says why of the first.
    """
    store = client()
    experiment = store.get_experiment_by_name(name)
    found = _pipelines(store, experiment.experiment_id) if experiment is not None else []
    if run_ids:
        found = [_one(store, found, run_id, name) for run_id in dict.fromkeys(run_ids)]
    if not found:
        raise ConfigError(
            f"MLflow at {without_login(mlflow_uri())} has no finished run of the recipe '{name}': run it first "
            "(preflow run RECIPE)"
        )
    kept: list[KeptRun] = []
    unread: list[dict[str, str]] = []
    for run in found if run_ids else found[:last]:
        try:
            kept.append(_kept(store, run))
        except (ArtifactError, ConfigError) as error:
            unread.append({"name": _name(run), "reason": error.message})
    if not kept:
        raise ArtifactError("; ".join(f"{each['name']}: {each['reason']}" for each in unread))
    return kept, unread


def evaluated_run(run_id: str) -> KeptRun:
    """A finished run of whatever recipe.

    Args:
        run_id: MLflow's whole id of the pipeline run.

    Raises:
        ConfigError: There is no such run, it was deleted, or it kept no evaluation.
        ArtifactError: The artifact of its evaluation is neither in the store nor in MLflow, or is damaged.
    """
    find_run(run_id)
    store = client()
    return _kept(store, store.get_run(run_id))


def champion_run(model: str) -> str | None:
    """The pipeline run of a registered model's champion; none where there is no champion."""
    from mlflow.exceptions import MlflowException

    try:
        version = client().get_model_version_by_alias(model, CHAMPION)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None
    return str(version.run_id)


def log_comparison(run_id: str, files: Sequence[Path]) -> None:
    """Keep a comparison's files with a run."""
    run = client().get_run(run_id)
    for file in files:
        keep_file(run, file, "comparison")


def _pipelines(store: Any, experiment: str) -> list[Any]:
    order = ["attributes.start_time DESC"]
    return list(store.search_runs([experiment], f"tags.kind = 'pipeline' and {_FINISHED}", order_by=order))


def _one(store: Any, found: Sequence[Any], run_id: str, name: str) -> Any:
    """The run that an id, or the beginning of one, names; also one that was deleted, which cannot be read.

    Raises:
        ConfigError: None, or several.
    """
    named = [run for run in found if str(run.info.run_id).startswith(run_id)]
    named = named or [run for run in _deleted(store, run_id) if run.data.tags.get("kind") == "pipeline"]
    if len(named) != 1:
        raise ConfigError(
            f"{run_id} is the beginning of {len(named)} ids of finished runs of the recipe '{name}': expected one. "
            "MLflow's runs table shows ids"
        )
    return named[0]


def _deleted(store: Any, run_id: str) -> list[Any]:
    """The deleted run that a whole id names, in a list; empty where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return []
    return [run] if run.info.lifecycle_stage == "deleted" else []


def _name(run: Any) -> str:
    return str(run.data.tags.get("mlflow.runName", run.info.run_id))


def stage_artifact(run_id: str, stage: str) -> Artifact | None:
    """The artifact of a stage of a pipeline run; none where the run has no such stage, or it did not finish.

    Raises:
        ArtifactError: It is neither in the store nor in MLflow, or is damaged.
    """
    store = client()
    found = _finished_stage(store, store.get_run(run_id), stage)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for small files
    return None if found is None else _stage(store, found)


def _finished_stage(store: Any, run: Any, stage: str) -> Any:
    mine = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' and tags.stage = '{stage}' and {_FINISHED}"
    return next(iter(store.search_runs([run.info.experiment_id], mine, max_results=1)), None)


def _kept(store: Any, run: Any) -> KeptRun:
    run_id = str(run.info.run_id)
    if run.info.lifecycle_stage == "deleted":
        raise ConfigError(f"run {run_id} was deleted in MLflow: restore it (mlflow runs restore --run-id {run_id})")
    stage = _finished_stage(store, run, "evaluate")
    if stage is None:
        raise ConfigError(f"run {run_id} has no finished evaluation: expected the id of a finished pipeline run")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for small files
    text = read_text(run, "recipe.yaml")
    if text is None:
        raise ConfigError(f"run {run_id} has no recipe.yaml in MLflow any more: start its recipe again")
    kept = KeptRun.of(run_id, _name(run), _settings(run_id, text), _stage(store, stage))
    others = {name: _finished_stage(store, run, name) for name in ("judge", "benchmarks")}
    read = {name: found and _stage(store, found).load(f"{name}.json") for name, found in others.items()}
    return replace(kept, **read, later=_later(run))


def _settings(run_id: str, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f"recipe.yaml of run {run_id} in MLflow cannot be read: restore it, or start its recipe again"
        )
    return found


def _later(run: Any) -> tuple[str, ...]:
    """Reviews of a run and decisions on its model, each in a sentence; where those are no chain, that."""
    model, broken = registered_name(run), []
    try:
        decisions = [] if model is None else decisions_on(model)
    except PromotionError as error:
        decisions, broken = [], [error.message]
    sections = sections_of(run, decisions)
    return (*(line.removeprefix("- ") for line in sections.splitlines() if line.startswith("- ")), *broken)


def _stage(store: Any, stage: Any) -> Artifact:
    """The artifact of a stage: from the store, else the copy in MLflow, held to its digest.

    Raises:
        ArtifactError: It is in neither, or is another.
    """
    tags = stage.data.tags
    folder = place_of(tags["artifact_path"])
    if not (folder / MANIFEST).is_file():
        folder = _copy(store, str(tags.get("cached_from", stage.info.run_id)))
    artifact = verify(folder)
    if artifact.digest != tags["artifact_digest"]:
        raise ArtifactError(
            f"{folder} is not what MLflow records of the stage: its digest is {artifact.digest}, expected "
            f"{tags['artifact_digest']}. Run the recipe again"
        )
    return artifact


def _copy(store: Any, run_id: str) -> Path:
    """MLflow's copy of a stage's artifact.

    Raises:
        ArtifactError: The run that keeps it, or the files, are gone.
    """
    from mlflow.exceptions import MlflowException

    try:
        there = local_folder(store.get_run(run_id))
        return Path(store.download_artifacts(run_id, "")) if there is None else there
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        raise ArtifactError(
            f"an artifact is neither in the store nor in MLflow, as run {run_id} is gone: start the recipe again"
        ) from None
