"""The first stage: may these data pass?"""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import ValidateSpec
from tasks.caching import RESULTS, VERIFIED
from tasks.stage import HOUR, PAUSES, can_help, note_if_cached, perform
from tasks.tracking import PipelineRun


@task(
    name="validate",
    task_run_name="{run.recipe}-validate",
    retries=2,
    retry_delay_seconds=PAUSES,
    retry_condition_fn=can_help,
    timeout_seconds=2 * HOUR,
    cache_policy=VERIFIED,
    persist_result=True,
    result_storage=RESULTS,
    result_serializer="json",
    on_completion=[note_if_cached],
)
def validate(spec: ValidateSpec, run: PipelineRun) -> Artifact:
    """Check the rows, set the unfit aside, split off the held-out ones."""
    from expectations.gate import run_gate

    return perform("validate", spec, run, run_gate)
