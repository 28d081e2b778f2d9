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
from preflow.errors import ArtifactError, ConfigError
from preflow.redaction import without_login
from preflow.verification.recorded import place_of
from tasks.tracking.client import client
from tasks.tracking.registry.cards import decisions_on, registered_name, sections_of
from tasks.tracking.run_files import keep_file, local_folder, read_text

CHAMPION = "champion"
_FINISHED = "attributes.status = 'FINISHED'"


def evaluated_runs(name: str, run_ids: Sequence[str], last: int) -> list[KeptRun]:
    """Finished runs of a recipe, the newest first.

    Args:
        name: The recipe's name.
        run_ids: MLflow ids of pipeline runs, or the beginnings of ids; the ``last`` newest ones where none are given.
        last: How many of the newest.

    Raises:
        ConfigError: There is no such run, or it kept no evaluation.
        ArtifactError: The artifact of an evaluation is neither in the store nor in MLflow, or is damaged.
    """
    store = client()
    experiment = store.get_experiment_by_name(name)
    found = _pipelines(store, experiment.experiment_id) if experiment is not None else []
    if run_ids:
        found = [_one(found, run_id, name) for run_id in dict.fromkeys(run_ids)]
    if not found:
        raise ConfigError(
            f"MLflow at {without_login(mlflow_uri())} has no finished run of the recipe '{name}': run it first "
            "(preflow run RECIPE)"
        )
    return [_kept(store, run) for run in (found if run_ids else found[:last])]


def champion_run(model: str) -> str | None:
    """The pipeline run of a registered model's champion; none where there is no champion."""
    from mlflow.exceptions import MlflowException

    try:
        version = client().get_model_version_by_alias(model, CHAMPION)
    except MlflowException:
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


def _one(found: Sequence[Any], run_id: str, name: str) -> Any:
    """The run that an id, or the beginning of one, names.

    Raises:
        ConfigError: None, or several.
    """
    named = [run for run in found if str(run.info.run_id).startswith(run_id)]
    if len(named) != 1:
        raise ConfigError(
            f"{run_id} is the beginning of {len(named)} ids of finished runs of the recipe '{name}': expected one. "
            "MLflow's runs table shows ids"
        )
    return named[0]


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
    run_id, stage = str(run.info.run_id), _finished_stage(store, run, "evaluate")
    if stage is None:
        raise ConfigError(f"run {run_id} has no finished evaluation: expected the id of a finished pipeline run")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for small files
    text = read_text(run, "recipe.yaml")
    if text is None:
        raise ConfigError(f"run {run_id} has no recipe.yaml in MLflow any more: start its recipe again")
    recipe = yaml.safe_load(text)
    name = run.data.tags.get("mlflow.runName", run_id)
    kept = KeptRun.of(run_id, str(name), recipe, _stage(store, stage))
    others = {name: _finished_stage(store, run, name) for name in ("judge", "benchmarks")}
    read = {name: found and _stage(store, found).load(f"{name}.json") for name, found in others.items()}
    return replace(kept, **read, later=_later(run))


def _later(run: Any) -> tuple[str, ...]:
    """Reviews of a run and decisions on its model, each in a sentence."""
    model = registered_name(run)
    sections = sections_of(run, [] if model is None else decisions_on(model))
    return tuple(line.removeprefix("- ") for line in sections.splitlines() if line.startswith("- "))


def _stage(store: Any, stage: Any) -> Artifact:
    """The artifact of a stage: from the store, else the copy in MLflow, held to its digest.

    Raises:
        ArtifactError: It is in neither, or is another.
    """
    tags = stage.data.tags
    folder = place_of(tags["artifact_path"])
    if not (folder / MANIFEST).is_file():
        origin = str(tags.get("cached_from", stage.info.run_id))
        there = local_folder(store.get_run(origin))
        folder = Path(store.download_artifacts(origin, "")) if there is None else there
    artifact = verify(folder)
    if artifact.digest != tags["artifact_digest"]:
        raise ArtifactError(
            f"{folder} is not what MLflow records of the stage: its digest is {artifact.digest}, expected "
            f"{tags['artifact_digest']}. Run the recipe again"
        )
    return artifact
