"""What the stage of benchmarks is asked to do."""

from pathlib import Path
from typing import Any

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, numbers
from preflow.models.resolve import ModelRef


class BenchmarkSpec(Frozen):
    """Let base, SFT and DPO model do the recipe's benchmarks."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    dpo: Artifact | None = None
    files: tuple[str, ...] = ()
    """Digests of the tasks' files, in order."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: models and files of tasks; no row of the run's data."""
        made = {name: artifact and artifact.digest for name, artifact in (("sft", self.sft), ("dpo", self.dpo))}
        return {"base": self.base.digest, "tasks": list(self.files), **made}

    def options(self) -> dict[str, Any]:
        """Which tasks are done and how; a file counts by its digest, not by its place."""
        recipe, settings = self.recipe, self.recipe.evaluation
        asked = None if settings.benchmarks is None else numbers(settings.benchmarks)
        if asked is not None:
            asked["tasks"] = [Path(name).name for name in asked["tasks"]]
        names = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        return {
            "benchmarks": asked,
            **{name: getattr(recipe, name) for name in names},
            **{name: getattr(settings, name) for name in ("bootstrap_samples", "confidence")},
            "rendering": numbers(recipe.rendering),
        }
