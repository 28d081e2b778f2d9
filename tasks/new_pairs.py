"""The stages of new pairs: a model answers training prompts, a judge ranks the answers, pairs are made of them."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.specs import JudgeAnswersSpec, PairSpec, SampleSpec
from tasks.runtime.stage import DAY, STAGE, perform
from tasks.tracking.pipeline_run import PipelineRun


@task(
    name="sample",
    task_run_name="{run.recipe}-sample",
    retries=2,
    timeout_seconds=7 * DAY,
    **STAGE,
)
def sample(spec: SampleSpec, run: PipelineRun) -> Artifact:
    """Sample several answers to each training prompt."""
    from preflow.stages.on_policy.sampling import run_sampling

    return perform("sample", spec, run, run_sampling)


@task(
    name="judge_answers",
    task_run_name="{run.recipe}-judge_answers",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def judge_answers(spec: JudgeAnswersSpec, run: PipelineRun) -> Artifact:
    """Test the judge on held-out pairs, then let it rank the sampled answers."""
    from preflow.stages.on_policy.judging import run_judging_answers

    return perform("judge_answers", spec, run, run_judging_answers)


@task(
    name="pair",
    task_run_name="{run.recipe}-pair",
    retries=2,
    timeout_seconds=DAY,
    **STAGE,
)
def pair(spec: PairSpec, run: PipelineRun) -> Artifact:
    """Make preference pairs of the judged answers."""
    from preflow.stages.on_policy.pairing import run_pairing

    return perform("pair", spec, run, run_pairing)
