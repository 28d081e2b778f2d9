"""What every stage's task does around its one library call."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prefect.context import TaskRunContext

from preflow import artifacts
from preflow.artifacts import Artifact
from preflow.errors import DataDownloadError, DataUnfitError, KilledRankError, ModelDownloadError, PreflowError
from preflow.fingerprints.files import json_digest
from preflow.models.resolve import unchanged
from preflow.observer import Observer
from preflow.redaction import redacted_errors
from preflow.specs import (
    BenchmarkSpec,
    DpoSpec,
    EvaluateSpec,
    JudgeAnswersSpec,
    JudgeSpec,
    LengthsSpec,
    PairSpec,
    ReferenceSpec,
    RewardModelSpec,
    RlooSpec,
    SampleSpec,
    SftSpec,
    StageSpec,
    TuneSpec,
    ValidateSpec,
)
from tasks.runtime import caching
from tasks.runtime.caching import RESULTS, VERIFIED
from tasks.runtime.reporting import Reporter, log_duration, log_user
from tasks.tracking.client import brief
from tasks.tracking.pipeline_run import PipelineRun
from tasks.tracking.stage_run import StageRun, stage_run

HOUR = 3600.0
DAY = 24 * HOUR
#: Seconds before each retry, in which a full disk or a failed network can recover.
PAUSES = [10.0, 60.0]

Spec = TypeVar(
    "Spec",
    ValidateSpec,
    LengthsSpec,
    SftSpec,
    ReferenceSpec,
    TuneSpec,
    DpoSpec,
    EvaluateSpec,
    BenchmarkSpec,
    JudgeSpec,
    SampleSpec,
    JudgeAnswersSpec,
    PairSpec,
    RewardModelSpec,
    RlooSpec,
)


def perform(
    stage: str,
    spec: Spec,
    run: PipelineRun,
    work: Callable[[Spec, Path, Observer], None],
) -> Artifact:
    """Do a stage's work in its place in the store, tracked and reported.

    Args:
        stage: The stage's name.
        spec: What to do.
        run: The pipeline run it belongs to.
        work: Writes the stage's files into the folder it is given.
    """
    final = caching.place(stage, spec)
    computed = False
    observer: Reporter
    child: StageRun

    def write(out: Path) -> None:
        nonlocal computed
        computed = True
        begin = time.monotonic()
        try:
            with _unchanged(spec):
                work(spec, out, observer)
        except DataUnfitError:
            child.keep(out)  # the report says which rows
            raise
        observer.metrics({f"{stage}/work_seconds": time.monotonic() - begin}, 0)

    with (
        redacted_errors(),
        log_duration(stage),
        stage_run(run, stage) as child,
        Reporter(run.recipe, stage, child) as observer,
    ):
        artifact = artifacts.build(final, write)
        child.complete(artifact, final.name, computed=computed)
        child.specified(caching.specification(stage, spec))
    return artifact


def _unchanged(spec: StageSpec) -> AbstractContextManager[None]:
    """A block that reads a stage's model and raises if its files are not what the specification says.

    Data validation holds its data files to their digests itself; later stages read artifacts of the store.
    """
    base = getattr(spec, "base", None)
    return nullcontext() if base is None else unchanged(base)


def can_help(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a retry can help: errors of disk or network, a killed rank, none that the user must fix."""
    error = state.data
    helps = _passes(error)
    if helps:
        log_user(f"{task.name}: {brief(error)}; it is tried again in a moment", warning=True)
    return helps


def _passes(error: object) -> bool:
    if isinstance(error, ModelDownloadError | DataDownloadError | KilledRankError):
        return True
    if isinstance(error, PreflowError | TimeoutError):  # the user's to fix; the task's time is over
        return False
    return isinstance(error, OSError | httpx.TransportError)


def note_if_cached(task: Any, task_run: Any, state: Any) -> None:
    """Record a finished MLflow run for a stage that Prefect served from its cache."""
    context = TaskRunContext.get()
    if state.name != "Cached" or context is None:
        return
    run, spec = context.parameters["run"], context.parameters["spec"]
    with stage_run(run, task.name, computing=False) as child:
        asked = caching.specification(task.name, spec)
        child.complete(state.result(), json_digest(asked), computed=False)
        child.specified(asked)
    log_user(f"{task.name}: cached")


#: Options of every stage's task: when to retry, and a cache whose artifacts are verified before they are served.
STAGE: dict[str, Any] = {
    "retry_delay_seconds": PAUSES,
    "retry_condition_fn": can_help,
    "cache_policy": VERIFIED,
    "persist_result": True,
    "result_storage": RESULTS,
    "result_serializer": "json",
    "on_completion": [note_if_cached],
}
