"""The stage of RLOO: the policy learns from a reward model's rewards of its own answers."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import RlooSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="rloo",
    task_run_name="{run.recipe}-rloo",
    retries=2,
    timeout_seconds=7 * DAY,
    **STAGE,
)
def rloo(spec: RlooSpec, run: PipelineRun) -> Artifact:
    """Check policy and reference, then train by RLOO on the reward model's rewards."""
    from preflow.stages.rlhf.rloo import run_rloo

    return perform("rloo", spec, run, run_rloo)
