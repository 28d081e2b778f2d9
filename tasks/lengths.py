"""The second stage: count tokens, before weights are loaded."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import LengthsSpec
from tasks.runtime.stage import HOUR, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="lengths",
    task_run_name="{run.recipe}-lengths",
    retries=2,
    timeout_seconds=2 * HOUR,
    **STAGE,
)
def lengths(spec: LengthsSpec, run: PipelineRun) -> Artifact:
    """Tokenize every row, count which fit, refuse a set of which no row would be left."""
    from preflow.stages.lengths import run_lengths

    return perform("lengths", spec, run, run_lengths)
