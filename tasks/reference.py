"""The third stage: log-probs of every pair under the model that DPO starts from."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import ReferenceSpec
from tasks.caching import RESULTS, VERIFIED
from tasks.stage import DAY, PAUSES, can_help, note_if_cached, perform
from tasks.tracking import PipelineRun


@task(
    name="reference",
    task_run_name="{run.recipe}-reference",
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
def reference(spec: ReferenceSpec, run: PipelineRun) -> Artifact:
    """Compute the log-probs of every pair under the reference model, once."""
    from preflow.stages.reference import run_reference

    return perform("reference", spec, run, run_reference)
