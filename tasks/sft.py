"""The second stage: fine-tune on demonstrations."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import SftSpec
from tasks.caching import RESULTS, VERIFIED
from tasks.stage import DAY, PAUSES, can_help, note_if_cached, perform
from tasks.tracking import PipelineRun


@task(
    name="sft",
    task_run_name="{run.recipe}-sft",
    retries=2,
    retry_delay_seconds=PAUSES,
    retry_condition_fn=can_help,
    timeout_seconds=7 * DAY,
    cache_policy=VERIFIED,
    persist_result=True,
    result_storage=RESULTS,
    result_serializer="json",
    on_completion=[note_if_cached],
)
def sft(spec: SftSpec, run: PipelineRun) -> Artifact:
    """Fine-tune the base model on the training demonstrations."""
    from preflow.stages.sft import run_sft

    return perform("sft", spec, run, run_sft)
