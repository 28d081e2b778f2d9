"""The fifth stage: Direct Preference Optimization."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import DpoSpec
from tasks.runtime.processes import in_processes
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="dpo",
    task_run_name="{run.recipe}-dpo",
    retries=2,
    timeout_seconds=7 * DAY,
    **STAGE,
)
def dpo(spec: DpoSpec, run: PipelineRun) -> Artifact:
    """Train the SFT model further on preference pairs, against its own stored log-probs."""
    from preflow.stages.dpo import run_dpo

    return perform("dpo", spec, run, in_processes("dpo", run_dpo))
