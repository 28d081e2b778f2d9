"""The stage of a reward model: trained on the pairs, tested on held-out ones."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import RewardModelSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="reward_model",
    task_run_name="{run.recipe}-reward_model",
    retries=2,
    timeout_seconds=7 * DAY,
    **STAGE,
)
def reward_model(spec: RewardModelSpec, run: PipelineRun) -> Artifact:
    """Train a reward model on the pairs, and measure how often it agrees with held-out ones."""
    from preflow.stages.rlhf.reward_model import run_reward_model

    return perform("reward_model", spec, run, run_reward_model)
