"""What a recipe needs for a reward model, and which settings its training has."""

from typing import Any

import pytest
from pydantic import ValidationError

from preflow.config import Recipe
from preflow.config.checks.rlhf import require_reward_model
from preflow.errors import ConfigError


def recipe(strategy: str = "two-stage", **settings: Any) -> Recipe:
    sections = {stage: {"dataset": "d"} for stage in Recipe.stages[strategy]}
    return Recipe.model_validate({"strategy": strategy, "model_name": "m", **sections, **settings})


def test_every_recipe_with_pairs_can_have_one() -> None:
    require_reward_model(recipe())
    require_reward_model(recipe("dpo", reward_model={"start": "base"}, tuning="full"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (recipe("sft"), "has no preference pairs"),
        (recipe("dpo", reward_model={"start": "sft"}), "runs no SFT stage"),
        (recipe(use_4bit=True), "4-bit weights cannot be merged"),
        (recipe(provider="unsloth"), "no head for one output"),
    ],
)
def test_what_is_missing_is_named(given: Recipe, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_reward_model(given)


def test_its_settings_stand_before_those_of_the_pairs() -> None:
    given = recipe(max_seq_length=99, max_tokens_per_batch=50, reward_model={"learning_rate": 3e-3, "max_steps": 7})
    assert given.dpo is not None
    settings = given.reward_model.applied_to(given.dpo)
    assert (settings.learning_rate, settings.max_steps, settings.max_seq_length) == (3e-3, 7, 99)
    assert settings.max_tokens_per_batch is None
    assert given.dpo.learning_rate == 5e-6


def test_no_steps_at_all_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_steps is 0"):
        recipe(reward_model={"max_steps": 0})
