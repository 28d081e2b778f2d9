"""The chain up to a reward model: validate, fine-tune, train the reward model on the pairs.

``preflow reward-model RECIPE`` runs it; what it computes before the reward model is what ``preflow run`` computes too.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow

from flows.opening import OpenedRun, opened_run
from flows.running.publish import run_name
from preflow.artifacts import Artifact
from preflow.config.checks.rlhf import require_reward_model
from preflow.specs import RewardModelSpec
from tasks.rlhf.reward_model import reward_model


@flow(name="reward-model", flow_run_name=run_name)
def train_reward_model(recipe: str, overrides: dict[str, Any] | None = None) -> Artifact:
    """Train a reward model on a recipe's pairs.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.

    Returns:
        The artifact with the classifier and its test on held-out pairs.
    """
    with opened_run(recipe, overrides, "reward-model", require_reward_model) as opened:
        return reward_model(reward_model_spec(opened), opened.run)


def reward_model_spec(opened: OpenedRun) -> RewardModelSpec:
    """What is asked of the stage; the model that the reward model starts from is fine-tuned first."""
    settings = opened.recipe
    tuned = None if settings.reward_model.start == "base" else opened.fine_tuned()
    return RewardModelSpec(recipe=settings, base=opened.base, data=opened.data, sft=tuned)
