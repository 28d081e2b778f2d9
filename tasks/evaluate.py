"""The last stage: base, SFT and DPO model side by side."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import EvaluateSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="evaluate",
    task_run_name="{run.recipe}-evaluate",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def evaluate(spec: EvaluateSpec, run: PipelineRun) -> Artifact:
    """Evaluate every model on held-out rows."""
    from preflow.stages.evaluation import run_evaluation

    return perform("evaluate", spec, run, run_evaluation)
