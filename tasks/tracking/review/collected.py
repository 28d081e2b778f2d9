"""Collected reviews of a run: ``human_review.json`` among its files, and its metrics."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.artifacts import write_json
from preflow.environment import preflow_home
from preflow.review.record import HUMAN_REVIEW, HumanReview, reviews_of, with_report
from tasks.tracking.client import client
from tasks.tracking.registry.cards import renew_card


def human_reviews(run_id: str) -> list[HumanReview]:
    """What people said of a run's answers to held-out prompts, the newest review last; empty where none was collected.

    Args:
        run_id: MLflow's id of the pipeline run.
    """
    return reviews_of(_kept(run_id))


def human_review(run_id: str, other: str | None = None) -> HumanReview | None:
    """The newest review of a run's answers to held-out prompts.

    It may not count: ``HumanReview.reason`` says why.

    Args:
        run_id: MLflow's id of the pipeline run whose model is the new one.
        other: Digest of the other model, as ``Version.artifact_digest``; any where not given.
    """
    found = [each for each in human_reviews(run_id) if other is None or each.models[1].digest == other]
    return found[-1] if found else None


def base_digest(run_id: str) -> str:
    """Digest of the base weights of a pipeline run."""
    return str(client().get_run(run_id).data.tags.get("base_model_digest", ""))


def log_review(run_id: str, report: dict[str, Any], metrics: dict[str, float]) -> None:
    """Keep a collected review with its run, in place of what was collected of it before.

    Args:
        run_id: MLflow's id of the pipeline run.
        report: An entry of ``human_review.json``.
        metrics: By name.
    """
    from mlflow.entities import Metric

    store = client()
    with FileLock(preflow_home() / "human_review.lock"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / HUMAN_REVIEW
        write_json(file, with_report(_kept(run_id), report))
        store.log_artifact(run_id, str(file))
    now = int(time.time() * 1000)
    store.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
    renew_card(run_id)


def _kept(run_id: str) -> list[dict[str, Any]]:
    store = client()
    if HUMAN_REVIEW not in {each.path for each in store.list_artifacts(run_id)}:
        return []
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(store.download_artifacts(run_id, HUMAN_REVIEW, folder))
        return list(json.loads(file.read_text(encoding="utf-8")))
