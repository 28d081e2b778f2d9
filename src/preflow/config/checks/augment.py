"""What a recipe needs for new pairs of its model's answers."""

from preflow.config.recipe import Recipe
from preflow.errors import ConfigError


def require_augmentable(recipe: Recipe) -> None:
    """Check that a recipe can make new pairs.

    Raises:
        ConfigError: It runs no DPO stage, names no judge, or lets a model answer that it does not have.
    """
    if recipe.dpo is None:
        raise ConfigError(
            f"strategy is '{recipe.strategy}', which runs no DPO stage: new pairs are for one, and a judge is tested "
            "on its held-out pairs. Use strategy: two-stage or dpo"
        )
    if recipe.augment.judge is None and recipe.evaluation.judge is None:
        raise ConfigError(
            "no judge is named, so nothing would rank the sampled answers: give augment.judge or evaluation.judge a "
            "kind and a model"
        )
    if recipe.augment.policy == "sft" and recipe.sft is None:
        raise ConfigError(
            f"augment.policy is 'sft' but strategy '{recipe.strategy}' runs no SFT stage: leave it out, and the named "
            "model answers"
        )
