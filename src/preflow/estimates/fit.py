"""The smallest change of a recipe with which a stage fits into the memory available."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.estimates.flops import ModelShape
from preflow.estimates.training import training_memory
from preflow.estimates.workload import Lengths, longest_sequence
from preflow.models.precision import Precision
from preflow.training.out_of_memory import smaller_batch

_SHORTEST = 64
#: Settings of a change that belong to the recipe itself; all others belong to a training section.
TOP_LEVEL = ("tuning", "use_4bit")


@dataclass(frozen=True, slots=True)
class Change:
    """Settings with which a stage fits.

    Attributes:
        settings: By name, as a recipe has them.
        cut: Rows whose prompts lose their beginning to a shorter ``max_seq_length``.
        dropped: Rows that a shorter ``max_seq_length`` drops, since their response does not fit.
    """

    settings: Mapping[str, object]
    cut: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        """The settings as lines of a recipe, and what they cost."""
        named = ", ".join(f"{name}: {str(value).lower()}" for name, value in self.settings.items())
        costs = f" (cuts the prompts of {self.cut} rows and drops {self.dropped})"
        return named + (costs if "max_seq_length" in self.settings else "")


def nearest_fitting_settings(
    shape: ModelShape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    available: float,
    common: int = 0,
) -> Change | None:
    """The smallest of the usual changes with which a training fits into ``available`` bytes; None if none does.

    In this order: smaller micro-batches of the same effective batch, gradient checkpointing, an 8-bit optimizer, 4-bit
    weights, an adapter instead of all weights; shorter rows last, since they alone cost data.
    """
    for limit in _limits(rows, settings):
        kept = [short for row in rows if (short := shortened(row, limit)) is not None]
        if not kept:
            return None
        for named, given, trial in _trials(recipe, settings):
            limited = trial.model_copy(update={"max_seq_length": limit})
            need = training_memory(shape, given, limited, kept, weights_precision(given, precision), common)
            if need.total <= available:
                if limit == settings.max_seq_length:
                    return Change(named)
                cut = sum(shortened(row, limit) not in (row, None) for row in rows)
                return Change({**named, "max_seq_length": limit}, cut, len(rows) - len(kept))
    return None


def smallest_fitting_change(
    fits: Callable[[Recipe, Precision], bool], recipe: Recipe, precision: Precision
) -> Change | None:
    """The smallest change of ``tuning`` and ``use_4bit`` with which something fits; None if none does."""
    changes: list[dict[str, object]] = [{"tuning": "lora"}] if recipe.tuning == "full" else []
    changes += [{**change, "use_4bit": True} for change in (changes or [{}])] if not recipe.use_4bit else []
    for change in changes:
        given = recipe.model_copy(update=change)
        if fits(given, weights_precision(given, precision)):
            return Change(change)
    return None


def weights_precision(recipe: Recipe, precision: Precision) -> Precision:
    """The same device and compute dtype, with the weights' dtype that the recipe's ``tuning`` needs."""
    return replace(precision, weights=torch.float32 if recipe.tuning == "full" else precision.compute)


def _trials(recipe: Recipe, settings: TrainingSettings) -> Iterator[tuple[dict[str, object], Recipe, TrainingSettings]]:
    """What is changed, and the recipe and the section with it."""
    weights = [("lora", four_bit) for four_bit in sorted({recipe.use_4bit, True})]
    if recipe.tuning == "full":
        weights.insert(0, ("full", False))
    now = {**settings.model_dump(), "tuning": recipe.tuning, "use_4bit": recipe.use_4bit}
    for tuning, four_bit in weights:
        for optim in dict.fromkeys((settings.optim, "paged_adamw_8bit")):
            for again in sorted({settings.gradient_checkpointing, True}):
                for batch in [{}, *_smaller_batches(settings)]:
                    top: dict[str, object] = {"tuning": tuning, "use_4bit": four_bit}
                    own: dict[str, object] = {**batch, "gradient_checkpointing": again, "optim": optim}
                    named = {name: value for name, value in {**own, **top}.items() if value != now[name]}
                    yield named, recipe.model_copy(update=top), settings.model_copy(update=own)


def _limits(rows: Sequence[Lengths], settings: TrainingSettings) -> Iterator[int]:
    """The recipe's own limit, then halves of it, as far as they are shorter than the longest row."""
    limit, longest = settings.max_seq_length, max(map(longest_sequence, rows))
    yield limit
    while (limit := limit // 2) >= _SHORTEST:
        if limit < longest:
            yield limit


def shortened(row: Lengths, limit: int) -> Lengths | None:
    """A row cut at the beginning of its prompt to ``limit`` tokens; None where its response leaves no prompt."""
    prompt = limit - max(row[1:])
    if prompt < 1:
        return None
    return (min(row[0], prompt), *row[1:]) if len(row) == 3 else (min(row[0], limit), row[1])


def _smaller_batches(settings: TrainingSettings) -> Iterator[dict[str, int]]:
    while less := smaller_batch(settings):
        yield less
        settings = settings.model_copy(update=less)
