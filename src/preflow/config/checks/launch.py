"""Checks of a recipe against the configuration of accelerate that its ``launch`` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from preflow.config.files import read_settings
from preflow.config.recipe import Recipe
from preflow.errors import ConfigError


def launched_precision(config: str) -> str:
    """The mixed precision of a configuration of accelerate: ``no`` (also where none is given), ``bf16``, ...

    Raises:
        ConfigError: The file is neither YAML nor JSON, or holds no settings.
    """
    return _precision(read_settings(Path(config), "launch.config"))


def _precision(values: Mapping[str, Any]) -> str:
    older = "fp16" if values.get("fp16") is True else None  # accelerate's older name
    value = values.get("mixed_precision", older)
    return "no" if value in (None, False, "") else str(value).lower()  # a bare no is false in YAML


def require_launchable(recipe: Recipe) -> None:
    """Check that a recipe can run under the configuration of accelerate that it names, if it names one.

    Raises:
        ConfigError: ``launch.config`` is no file, names a second one, asks for another precision than the recipe (the
            reference and the start-up checks compute in the recipe's), or is DeepSpeed's where there is a token budget.
    """
    if recipe.launch.config is None:
        return
    if not Path(recipe.launch.config).is_file():
        raise ConfigError(
            f"launch.config is {recipe.launch.config}, which is no file: expected a configuration of accelerate, named "
            "from the recipe's own folder"
        )
    values = read_settings(Path(recipe.launch.config), "launch.config")
    _require_one_file(recipe.launch.config, values)
    precision = _precision(values)
    # What "auto" comes to depends on the machine, so a launch in bfloat16 is checked at its start.
    if precision != "no" and (precision != "bf16" or recipe.bf16 is False):
        wrong_precision(recipe, precision)
    if str(values.get("distributed_type")).upper() == "DEEPSPEED":
        _require_no_budget(recipe, recipe.launch.config)


def _require_no_budget(recipe: Recipe, config: str) -> None:
    """Refuse a token budget under DeepSpeed, which steps its optimizer within the backward."""
    for stage, section in recipe.training_sections:
        if section.max_tokens_per_batch is not None:
            raise ConfigError(
                f"{stage}.max_tokens_per_batch is {section.max_tokens_per_batch}, but launch.config {config} is "
                "DeepSpeed's, which counts the micro-batches itself: remove it, or launch with DDP or FSDP"
            )


def _require_one_file(config: str, values: Mapping[str, Any]) -> None:
    """Refuse settings of DeepSpeed in a separate file, which no check of the configuration would read."""
    inner = values.get("deepspeed_config")
    other = inner.get("deepspeed_config_file") if isinstance(inner, Mapping) else None
    if other is not None:
        raise ConfigError(
            f"launch.config {config} names deepspeed_config_file {other}: its precision and its changes would not be "
            "checked. Write what it sets under deepspeed_config itself (zero_stage, offload_optimizer_device ...), "
            "as in infra/accelerate/deepspeed-zero3.yaml"
        )


def wrong_precision(recipe: Recipe, precision: str) -> NoReturn:
    """Raise for a launch configuration and a recipe with different precisions.

    Raises:
        ConfigError: Always.
    """
    bf16 = f"'{recipe.bf16}', which is float32 here" if recipe.bf16 == "auto" else str(recipe.bf16).lower()
    raise ConfigError(
        f"launch.config {recipe.launch.config} says mixed_precision {precision}, but the recipe's bf16 is {bf16}: "
        'training would compute in another precision than the reference. Write mixed_precision: "no" there, so that '
        "the recipe decides" + (", or bf16: true in the recipe" if precision == "bf16" else "")
    )
