"""The stage after the evaluation, where a recipe names benchmarks."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import BenchmarkSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="benchmarks",
    task_run_name="{run.recipe}-benchmarks",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def benchmarks(spec: BenchmarkSpec, run: PipelineRun) -> Artifact:
    """Let every model do the recipe's tasks."""
    from preflow.stages.benchmarks import run_benchmarks

    return perform("benchmarks", spec, run, run_benchmarks)
