"""The first stage: data validation."""

import json
from pathlib import Path

from prefect import task

from expectations.report.summary import PAGE
from preflow.artifacts import Artifact
from preflow.data.validated import REPORT
from preflow.errors import DataUnfitError
from preflow.observer import Observer
from preflow.specs import ValidateSpec
from tasks.runtime.reporting import show_findings
from tasks.runtime.stage import HOUR, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="validate",
    task_run_name="{run.recipe}-validate",
    retries=2,
    timeout_seconds=2 * HOUR,
    **STAGE,
)
def validate(spec: ValidateSpec, run: PipelineRun) -> Artifact:
    """Check the rows, quarantine bad ones, split off the held-out rows."""
    from expectations.gate import run_gate

    def shown(spec: ValidateSpec, out: Path, observer: Observer) -> None:
        try:
            run_gate(spec, out, observer)
        except DataUnfitError:
            show_findings(run.recipe, json.loads((out / REPORT).read_text(encoding="utf-8")), out / PAGE)
            raise

    return perform("validate", spec, run, shown)
