"""What a pipeline run says about itself: its name, its plan, and what it leaves in Prefect and MLflow."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.runtime import deployment, flow_run

from expectations.report.page import page
from expectations.report.present_names import under_present_names
from expectations.report.summary import PAGE, remedies
from flows.running.addresses import mlflow_address
from flows.running.preparation import Diagnosis, PreparedRun, RunResult
from flows.running.reconcile import close_in_prefect, skip_waiting
from flows.running.summary import description, markdown, metric_rows, report_of
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.validated import REPORT
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.other_stages import resources
from preflow.diagnosis.reading import measurements
from preflow.environment import preflow_home
from preflow.fingerprints.files import json_digest
from tasks.runtime.reporting import artifact_key, log_user, show_findings
from tasks.tracking.pipeline_run import PipelineRun, log_diagnosis, log_summary, run_address, tracked_resources

#: Overrides that a run's name shows, and how much of each.
_PARTS = 3
_LONGEST_PART = 24


def run_name() -> str:
    """The name of this run, the same in Prefect and in MLflow: recipe, overrides, start, and the id's beginning."""
    if flow_run.name and flow_run.run_count:  # the run has begun, so it has its name
        return str(flow_run.name)
    recipe = Path(str(flow_run.parameters["recipe"])).stem
    changes = described(flow_run.parameters.get("overrides") or {})
    return "-".join([recipe, *changes, f"{datetime.now():%Y%m%d-%H%M%S}", str(flow_run.id)[:4]])


def described(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as parts of a name: ``dpo.beta: 0.3`` is ``beta0.3``; no more than fit into a table's cell."""
    parts = [re.sub(r"[^A-Za-z0-9._]+", "_", f"{name.rpartition('.')[2]}{value}") for name, value in overrides.items()]
    shown = [part[:_LONGEST_PART] for part in parts[:_PARTS]]
    return shown if len(parts) <= _PARTS else [*shown, f"and{len(parts) - _PARTS}more"]


def flow_run_id() -> str:
    """Prefect's id of this flow run."""
    return str(flow_run.id)


def close_dead_runs(flow_run_ids: Iterable[str]) -> None:
    """Close in Prefect the flow runs of dead processes, and what an earlier attempt of this one left running."""
    close_in_prefect(flow_run_ids, flow_run_id())


def announce(prepared: PreparedRun) -> None:
    """Say what is going to run, and what experience advises against."""
    recipe = prepared.recipe
    if deployment.id and (skipped := skip_waiting(str(deployment.id))):
        log_user(f"{skipped} waiting runs of this schedule are skipped: a later one waits", warning=True)
    log_user(f"{recipe.name}: {recipe.strategy} with {recipe.model_name}, {recipe.tuning}")
    for line in prepared.advice:
        log_user(f"advice: {line}", warning=True)


def advise(prepared: PreparedRun, data: Artifact) -> None:
    """Say what the checked data advise against, whether they were checked now or in an earlier run, as a table too.

    A report of an earlier run is shown under the names that its files have now.
    """
    written = data.load(REPORT)
    report, shown = under_present_names(written, prepared.sources), data.file(PAGE)
    if report != written:
        shown = preflow_home() / "reports" / f"{prepared.recipe.name}-{json_digest(report)[:12]}.html"
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(page(report), encoding="utf-8", errors="backslashreplace")
        log_user(f"validate: files were renamed since their report was made; with their names of now: {shown}")
    for line in remedies(report):
        log_user(f"advice: {line}", warning=True)
    show_findings(prepared.recipe.name, report, shown)


def diagnosis_of(
    recipe: Recipe,
    run: PipelineRun,
    data: Artifact,
    evaluation: Artifact,
    trained: Mapping[str, Artifact | None],
    judged: Artifact | None,
) -> Diagnosis:
    """What a run's measurements show to be wrong, and what it took.

    Args:
        recipe: Its resolved settings.
        run: The pipeline run, under way.
        data: The artifact of data validation.
        evaluation: That of the evaluation.
        trained: Those of the training stages, by name.
        judged: That of the judge, where one was asked.
    """
    measured = measurements(recipe, data, evaluation, trained, tracked_resources(run), judged)
    return Diagnosis(findings=tuple(diagnose(measured)), resources=tuple(resources(measured)))


def finish(
    run: PipelineRun, made: Mapping[str, Artifact | None], model: Artifact | None, diagnosis: Diagnosis
) -> RunResult:
    """Leave the summary, the table of metrics and the link to MLflow, and name what was made."""
    assert model is not None, "every strategy trains a model"
    evaluation, judged, benchmarked = made["evaluate"], made["judge"], made["benchmarks"]
    assert evaluation is not None, "every run evaluates"
    report, samples = report_of(evaluation, judged, benchmarked), evaluation.load("samples.json")
    text = markdown(run.recipe, report, samples, str(model.file("model")), diagnosis)
    key = artifact_key(run.recipe)
    create_markdown_artifact(text, key=f"{key}-summary", description="What this run made")
    create_table_artifact(metric_rows(report), key=f"{key}-metrics", description="Models side by side on held-out rows")
    create_link_artifact(run_address(run, mlflow_address()), link_text="This run in MLflow", key=f"{key}-mlflow")
    log_summary(run, text)
    log_diagnosis(run, description(report, diagnosis), [finding.to_json() for finding in diagnosis.findings])
    return RunResult(
        recipe=run.recipe,
        mlflow_run_id=run.run_id,
        prefect_run_id=flow_run_id(),
        evaluation=evaluation,
        benchmarked=benchmarked,
        judged=judged,
        model=model,
        diagnosis=diagnosis,
    )
