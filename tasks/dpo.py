"""The fourth stage: align on preference pairs."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.stages.specs import DpoSpec
from tasks.caching import RESULTS, VERIFIED
from tasks.stage import DAY, PAUSES, can_help, note_if_cached, perform
from tasks.tracking import PipelineRun


@task(
    name="dpo",
    task_run_name="{run.recipe}-dpo",
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
def dpo(spec: DpoSpec, run: PipelineRun) -> Artifact:
    """Go on training the SFT model on pairs, against its own stored log-probs."""
    from preflow.stages.dpo import run_dpo

    return perform("dpo", spec, run, run_dpo)
