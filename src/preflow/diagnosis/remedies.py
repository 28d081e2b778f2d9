"""Remedies that change something: the first of several that the recipe does not have yet and would accept."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preflow.config import Recipe
from preflow.config.checks.advice import advice, usual_rates
from preflow.config.recipe import TrainingStage
from preflow.config.training import DpoSettings, TrainingSettings

#: Settings by dotted name, with the values to give them.
Change = Mapping[str, Any]


def remedy(recipe: Recipe, *candidates: Change | str) -> str:
    """The first remedy that changes something.

    Args:
        recipe: The run's settings.
        candidates: The best first. Words always count; settings only where the recipe has other values now, accepts
            these, and draws no advice with them that it did not draw before.

    Raises:
        ValueError: No candidate is left; the last should be words.
    """
    for candidate in candidates:
        if isinstance(candidate, str):
            return candidate
        changed = applied(recipe, candidate)
        if changed is not None and changed != recipe and not set(_advised(changed)) - set(_advised(recipe)):
            return " with ".join(f"{name}: {shown(value)}" for name, value in candidate.items())
    raise ValueError("no remedy changes this recipe: expected words as the last candidate")


def applied(recipe: Recipe, change: Change) -> Recipe | None:
    """The recipe with other settings, as if its file had them; none where it refuses them."""
    data = recipe.model_dump()
    for name, value in change.items():
        section, _, setting = name.rpartition(".")
        if section:
            data[section] = {**(data[section] or {}), setting: value}
        elif name in TrainingSettings.model_fields:  # given once for all stages
            for stage, settings in recipe.training_sections:
                follows = {"lora_alpha": None} if settings.lora_alpha == 2 * settings.lora_r else {}
                data[stage] = {**data[stage], name: value, **(follows if name == "lora_r" else {})}
        else:
            data[name] = value
    for stage in ("sft", "dpo"):
        if stage not in Recipe.stages[data["strategy"]]:
            data[stage] = None
    try:
        return Recipe.model_validate(data)
    except ValueError:
        return None


def _advised(recipe: Recipe) -> Iterator[str]:
    """What is advised against, by setting: the value in the text differs where both are advised against."""
    return (line.split(" is ")[0] for line in advice(recipe))


def shown(value: Any) -> str:
    """A value as a recipe's file has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return f"[{', '.join(shown(each) for each in value)}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def significant(value: float) -> float:
    """A proposed value with two significant digits."""
    return float(f"{value:.2g}")


def higher_rate(recipe: Recipe, rate: float) -> Iterator[Change]:
    """A higher learning rate for DPO, no more than has been seen to work; else the stage that measures one."""
    assert recipe.dpo is not None
    most = usual_rates(recipe)[1]
    if min(rate, most) > 1.05 * recipe.dpo.rate:
        yield {"dpo.learning_rate": significant(min(rate, most))}
    else:
        yield from longer(recipe, "dpo", 3.0)


def lower_rate(recipe: Recipe, factor: float = 3.0) -> Iterator[Change]:
    """A lower learning rate for DPO, and the stronger hold on the reference that is next to it."""
    assert recipe.dpo is not None
    yield {"dpo.learning_rate": significant(recipe.dpo.rate / factor)}
    yield {"dpo.beta": significant(3 * recipe.dpo.beta)}


def longer(recipe: Recipe, stage: TrainingStage, factor: float) -> Iterator[Change]:
    """More steps: by the setting that decides how many there are."""
    section = dict(recipe.training_sections)[stage]
    if section.max_steps > 0:
        yield {f"{stage}.max_steps": math.ceil(factor * section.max_steps)}
    else:
        yield {f"{stage}.num_train_epochs": math.ceil(factor * section.num_train_epochs)}


def shorter(recipe: Recipe, stage: TrainingStage, share: float) -> Iterator[Change]:
    """Fewer steps, at most so many of those of now."""
    section = dict(recipe.training_sections)[stage]
    if section.max_steps > 0:
        yield {f"{stage}.max_steps": max(1, min(math.ceil(share * section.max_steps), section.max_steps - 1))}
    else:
        epochs = min(math.ceil(share * section.num_train_epochs), math.ceil(section.num_train_epochs) - 1)
        yield {f"{stage}.num_train_epochs": max(1, epochs)}


def smaller_steps(dpo: DpoSettings, factor: float) -> Iterator[Change]:
    """Fewer pairs per step, so that there are so many times as many steps; nothing where one pair is too many."""
    rows = dpo.per_device_train_batch_size * dpo.gradient_accumulation_steps
    fewer = int(rows / factor)
    if 1 <= fewer < rows:
        batch = math.gcd(fewer, dpo.per_device_train_batch_size)
        yield {"dpo.per_device_train_batch_size": batch, "dpo.gradient_accumulation_steps": fewer // batch}


def with_fine_tuning(dpo: DpoSettings) -> Iterator[Change]:
    """The loss with that of SFT on chosen responses beside it, where it is not yet."""
    if "sft" not in dpo.loss_type:
        weights = dpo.loss_weights or (1.0,) * len(dpo.loss_type)
        yield {"dpo.loss_type": [*dpo.loss_type, "sft"], "dpo.loss_weights": [*weights, 0.2]}
