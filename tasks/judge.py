"""The stage after the evaluation, where a recipe names a judge."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import JudgeSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="judge",
    task_run_name="{run.recipe}-judge",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def judge(spec: JudgeSpec, run: PipelineRun) -> Artifact:
    """Let the judge compare the answers that the evaluation kept."""
    from preflow.stages.judging import run_judging

    return perform("judge", spec, run, run_judging)
