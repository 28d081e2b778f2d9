"""The first stage: may these data pass?"""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import ValidateSpec
from tasks.stage import HOUR, STAGE, perform
from tasks.tracking import PipelineRun


@task(
    name="validate",
    task_run_name="{run.recipe}-validate",
    retries=2,
    timeout_seconds=2 * HOUR,
    **STAGE,
)
def validate(spec: ValidateSpec, run: PipelineRun) -> Artifact:
    """Check the rows, set the unfit aside, split off the held-out ones."""
    from expectations.gate import run_gate

    return perform("validate", spec, run, run_gate)
