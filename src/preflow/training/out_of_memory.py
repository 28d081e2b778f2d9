"""Out of memory in training: the same optimizer steps in smaller forwards, from the last whole checkpoint."""

import re
from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from preflow import distributed
from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.observer import Observer

Result = TypeVar("Result")
_FEW_TOKENS = 16

_SIZE = re.compile(r"This forward had (\d+) tokens in (\d+) rows\.")


def smaller_batch(settings: TrainingSettings, error: BaseException | None = None) -> dict[str, int] | None:
    """The settings of the next smaller forward with the same rows per optimizer step; None where there is none.

    Args:
        settings: Under which memory was exhausted.
        error: The error. Where it names the forward's size, a budget is halved from there: a step may hold far fewer
            tokens than the budget, and a try that changes nothing loads and proves everything again.
    """
    budget = settings.max_tokens_per_batch
    if budget is not None:
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        # Of several ranks each may have reported its own.
        failed = [(int(tokens), int(rows)) for tokens, rows in _SIZE.findall(text)]
        less = min([budget, *(tokens for tokens, _ in failed)]) // 2
        alone = any(rows == 1 for _, rows in failed)
        # Below the shortest of rows that there are, every row runs alone anyway.
        return None if alone or less < _FEW_TOKENS else {"max_tokens_per_batch": less}
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    fitting = [size for size in range(1, settings.per_device_train_batch_size // 2 + 1) if rows % size == 0]
    if not fitting:
        return None
    return {"per_device_train_batch_size": fitting[-1], "gradient_accumulation_steps": rows // fitting[-1]}


def retry_with_smaller_batches(
    recipe: Recipe, stage: str, work: Callable[[Recipe], Result], observer: Observer
) -> Result:
    """Do a training stage's work, with smaller batches when out of memory and the recipe allows it.

    The work starts again from the last whole checkpoint; every optimizer step sees the same rows. Of several processes
    none tries again alone, since the others would wait for it in the midst of a step: all end, and are launched
    again.

    Args:
        recipe: Whose section ``stage`` says how large batches are.
        stage: ``sft`` or ``dpo``.
        work: Loads, trains and writes; given the recipe with the batch to try.
        observer: Told of every smaller try.
    """
    while True:
        settings: TrainingSettings = getattr(recipe, stage)
        try:
            return work(recipe)
        except RuntimeError as error:
            less = smaller_batch(settings, error)
            again = (
                settings.auto_find_batch_size and should_reduce_batch_size(error) and not distributed.is_distributed()
            )
            if not again or less is None:
                raise
        clear_device_cache(garbage_collection=True)
        tried = ", ".join(f"{name} {value}" for name, value in less.items())
        before = ", ".join(f"{name} {getattr(settings, name)}" for name in less)
        observer.note(
            f"{stage}: out of memory with {before}; trying {tried}, so that an optimizer step still sees the same rows"
        )
        recipe = recipe.model_copy(update={stage: settings.model_copy(update=less)})
