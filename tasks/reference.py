"""The fourth stage: log-probs of every pair under the model that DPO starts from."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import ReferenceSpec
from tasks.runtime.processes import filled
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="reference",
    task_run_name="{run.recipe}-reference",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def reference(spec: ReferenceSpec, run: PipelineRun) -> Artifact:
    """Compute the log-probs of every pair under the reference model, once."""
    from preflow.stages.reference import run_reference

    return perform("reference", spec, run, filled(run_reference))
