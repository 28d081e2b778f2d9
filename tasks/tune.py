"""Between the reference and DPO, where the recipe asks for it: the learning rate."""

from prefect import task

from preflow.artifacts import Artifact
from preflow.config import Recipe
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


def with_chosen_rate(spec: TuneSpec, run: PipelineRun) -> tuple[Recipe, Artifact | None]:
    """The recipe with a learning rate that is a number, and the range test that chose it where one was run."""
    dpo = spec.recipe.dpo
    assert dpo is not None, "a recipe with a DPO section"
    if dpo.learning_rate != "auto":
        return spec.recipe, None
    choice = tune(spec, run)
    chosen = dpo.model_copy(update={"learning_rate": choice.load("choice.json")["learning_rate"]})
    return spec.recipe.model_copy(update={"dpo": chosen}), choice
