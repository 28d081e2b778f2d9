"""What a recipe needs for a reward model, and for RLOO on its rewards."""

from preflow.config.recipe import Recipe
from preflow.errors import ConfigError


def require_reward_model(recipe: Recipe) -> None:
    """Check that a recipe can train a reward model.

    Raises:
        ConfigError: It has no preference pairs, starts from a model that it does not have, or loads weights in a way
            that a classifier cannot be made of.
    """
    if recipe.dpo is None:
        raise ConfigError(
            f"strategy is '{recipe.strategy}', which has no preference pairs: a reward model learns from those of the "
            "section dpo. Use strategy: two-stage or dpo"
        )
    if recipe.reward_model.start == "sft" and recipe.sft is None:
        raise ConfigError(
            f"reward_model.start is 'sft' but strategy '{recipe.strategy}' runs no SFT stage: leave it out, and the "
            "named model is the start"
        )
    if recipe.use_4bit:
        raise ConfigError(
            "use_4bit is true, but a reward model is saved whole, and 4-bit weights cannot be merged with its adapter "
            "without loss: use --set use_4bit=false, or name a smaller model"
        )
    if recipe.provider == "unsloth":
        raise ConfigError(
            "provider is 'unsloth', whose models have no head for one output: use --set provider=huggingface"
        )


def require_rloo(recipe: Recipe) -> None:
    """Check that a recipe can train by RLOO.

    Raises:
        ConfigError: It cannot train a reward model, or answers would be longer than rows may be.
    """
    require_reward_model(recipe)
    assert recipe.dpo is not None, "a recipe with pairs"
    if recipe.rloo.max_completion_length >= recipe.dpo.max_seq_length:
        raise ConfigError(
            f"rloo.max_completion_length is {recipe.rloo.max_completion_length} but dpo.max_seq_length "
            f"{recipe.dpo.max_seq_length}, which leaves no token for a prompt: lower the one or raise the other"
        )
