"""What tests of RLOO share: a short recipe, and rewards that need no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.specs import RlooSpec
from tests.fixtures.prepared_run import Run
from tests.unit.support import recipe_for

SHORT = {
    "max_completion_length": 6,
    "max_steps": 4,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "num_generations": 4,
    "eval_prompts": 8,
}


def recipe(run: Run, **changes: Any) -> Recipe:
    given = {"reward_model": {"learning_rate": 3e-3, "num_train_epochs": 4}, **changes}
    return recipe_for(run.base, **{**given, "rloo": {**SHORT, **given.get("rloo", {})}})


def spec_of(run: Run, judge: Artifact, **changes: Any) -> RlooSpec:
    made = {"base": run.base, "data": run.data, "reference": run.reference, "sft": run.sft}
    return RlooSpec.model_validate({"recipe": recipe(run, **changes), "reward_model": judge, **made})


class Worth:
    """In place of a reward model: an answer is worth the share of its tokens that are even."""

    def __init__(self, folder: Path, ends: Sequence[int], penalty: float, batch: int, precision: Any) -> None:
        self.ends = frozenset(ends)

    def __call__(self, answered: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
        return np.array([np.mean([token % 2 == 0 for token in answer]) for _, answer in answered])

    def finished(self, answer: Sequence[int]) -> bool:
        return answer[-1] in self.ends
