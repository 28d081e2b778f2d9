"""The third stage: supervised fine-tuning."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import SftSpec
from tasks.runtime.processes import in_processes
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="sft",
    task_run_name="{run.recipe}-sft",
    retries=2,
    timeout_seconds=7 * DAY,
    **STAGE,
)
def sft(spec: SftSpec, run: PipelineRun) -> Artifact:
    """Fine-tune the base model on the training split of the SFT examples."""
    from preflow.stages.sft import run_sft

    return perform("sft", spec, run, in_processes("sft", run_sft))
