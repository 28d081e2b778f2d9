"""The learning rate of DPO where a recipe leaves it to the range test."""

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.specs import TuneSpec
from tasks.tracking.pipeline_run import PipelineRun
from tasks.tune import tune


def with_chosen_rate(spec: TuneSpec, run: PipelineRun) -> tuple[Recipe, Artifact | None]:
    """The recipe with a learning rate that is a number, and the range test that chose it where one was run."""
    dpo = spec.recipe.dpo
    assert dpo is not None, "a recipe with a DPO section"
    if dpo.learning_rate != "auto":
        return spec.recipe, None
    choice = tune(spec, run)
    chosen = dpo.model_copy(update={"learning_rate": choice.load("choice.json")["learning_rate"]})
    return spec.recipe.model_copy(update={"dpo": chosen}), choice
