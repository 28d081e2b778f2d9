"""The last stage: base, SFT and DPO model side by side."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import EvaluateSpec
from tasks.caching import RESULTS, VERIFIED
from tasks.stage import DAY, PAUSES, can_help, note_if_cached, perform
from tasks.tracking import PipelineRun


@task(
    name="evaluate",
    task_run_name="{run.recipe}-evaluate",
    retries=2,
    retry_delay_seconds=PAUSES,
    retry_condition_fn=can_help,
    timeout_seconds=DAY,
    cache_policy=VERIFIED,
    persist_result=True,
    result_storage=RESULTS,
    result_serializer="json",
    on_completion=[note_if_cached],
)
def evaluate(spec: EvaluateSpec, run: PipelineRun) -> Artifact:
    """Measure every model on held-out rows."""
    from preflow.stages.evaluation import run_evaluation

    return perform("evaluate", spec, run, run_evaluation)
