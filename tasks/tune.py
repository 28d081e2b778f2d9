"""Between the reference and DPO, where the recipe asks for it: the learning rate."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import TuneSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="tune",
    task_run_name="{run.recipe}-tune",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def tune(spec: TuneSpec, run: PipelineRun) -> Artifact:
    """Choose the learning rate of DPO by a range test."""
    from preflow.stages.tune import run_tune

    return perform("tune", spec, run, run_tune)
