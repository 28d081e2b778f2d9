"""What the stages that measure the finished models are asked to do."""

from typing import Any

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, numbers
from preflow.data.validated import rows_file
from preflow.models.resolve import ModelRef
from preflow.specs.data import lengths_of


class EvaluateSpec(Frozen):
    """Compare base, SFT and DPO model on held-out rows."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    dpo: Artifact | None = None
    reference: Artifact | None = None

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the held-out rows alone."""
        artifacts = {name: getattr(self, name) for name in ("sft", "dpo", "reference")}
        held_out = self.data.digests_of(rows_file("demonstrations", "eval"), rows_file("preferences", "eval"))
        digests = {name: a and a.digest for name, a in artifacts.items()}
        return {"base": self.base.digest, "data": held_out, **digests}

    def options(self) -> dict[str, Any]:
        """The settings that can change a measurement."""
        recipe = self.recipe
        names = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        beta = {} if recipe.dpo is None else {"beta": recipe.dpo.beta}
        return {
            "evaluation": numbers(recipe.evaluation),
            **{name: getattr(recipe, name) for name in names},
            "rendering": numbers(recipe.rendering),
            **lengths_of(recipe),
            **beta,
        }


class JudgeSpec(Frozen):
    """Let a judge compare the answers of the finished model with those of its reference."""

    recipe: Recipe
    data: Artifact
    evaluation: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: the held-out rows that people judged, and the kept answers."""
        held_out = self.data.digests_of(rows_file("demonstrations", "eval"), rows_file("preferences", "eval"))
        return {"data": held_out, "evaluation": self.evaluation.digest}

    def options(self) -> dict[str, Any]:
        """The judge, and what its intervals depend on."""
        settings = self.recipe.evaluation
        names = ("bootstrap_samples", "confidence")
        judge = None if settings.judge is None else numbers(settings.judge)
        return {"judge": judge, "seed": self.recipe.seed, **{name: getattr(settings, name) for name in names}}
