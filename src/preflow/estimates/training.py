"""What a training will need: steps, arithmetic and peak memory, from sizes and lengths alone; and what would fit."""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.errors import UnknownShapeError
from preflow.estimates.flops import Shape, Work, forward_flops, packed_pair, sequence, shape_of, training_flops
from preflow.estimates.memory import Memory, peak_memory
from preflow.models.cpu.switch import kernels_wanted
from preflow.models.loading import LanguageModel
from preflow.models.packed.layout import shared_prefix_length
from preflow.models.precision import Precision
from preflow.training.out_of_memory import smaller_batch
from preflow.training.sampler import LengthSampler
from preflow.training.token_budget import within_budget

#: Tokens of a row: a pair's (prompt, chosen, rejected), a demonstration's (all, response).
Lengths = tuple[int, ...]
_SHORTEST = 64


@dataclass(frozen=True, slots=True)
class Forecast:
    """One training stage.

    Attributes:
        rows: Rows or pairs.
        tokens: Tokens through the layers in all epochs; padding included, for models that need it.
        scored: Tokens that are scored in all epochs.
        steps: Optimizer steps.
        forward: Floating-point operations of all forwards.
        training: Of forwards and backwards.
        memory: At the peak.
    """

    rows: int
    tokens: int
    scored: int
    steps: int
    forward: float
    training: float
    memory: Memory


def work_of(rows: Sequence[Lengths]) -> list[Work]:
    """What each row takes where rows run without padding, a pair's prompt once."""
    return [packed_pair(*each) if len(each) == 3 else sequence(*each) for each in rows]


def work_of_batch(rows: Sequence[Lengths], *, packed: bool, common: int = 0) -> Work:
    """What one forward over some rows takes.

    Args:
        rows: Their tokens.
        packed: Whether they run as one row; else all are as long as the longest, and a pair is two of them.
        common: Tokens with which all of them begin; they run once where rows run as one.
    """
    if packed:
        return sum(work_of(rows), Work(0, 0, 0)).beginning_alike(len(rows), common)
    width, sides = max(_widest(each) for each in rows), 2 if len(rows[0]) == 3 else 1
    count = sides * len(rows)
    return Work(count * width, count * width * width, sum(sum(each[1:]) for each in rows))


def common_tokens(prompts: Iterable[Sequence[int]], rows: Iterable[Lengths], limit: int) -> int:
    """With how many tokens the prompts of all rows begin alike, those aside that ``limit`` may have cut there.

    Args:
        prompts: Token ids of each row's prompt.
        rows: Tokens of each row.
        limit: Tokens that a row may have.
    """
    both = zip(prompts, rows, strict=True)
    return shared_prefix_length(prompt[:-1] for prompt, row in both if _widest(row) < limit)


def _forwards(
    rows: Sequence[Lengths], recipe: Recipe, settings: TrainingSettings, *, packed: bool, common: int
) -> list[Work]:
    """What each forward of an epoch takes."""
    return works_of(batches(rows, recipe, settings, packed=packed), settings, packed=packed, common=common)


def works_of(
    batches: Iterable[Sequence[Lengths]], settings: TrainingSettings, *, packed: bool, common: int
) -> list[Work]:
    """What each of some batches takes; rows that may be cut have no beginning in common with others."""
    limit = settings.max_seq_length
    return [
        work_of_batch(each, packed=packed, common=common if all(_widest(row) < limit for row in each) else 0)
        for each in batches
    ]


def _widest(row: Lengths) -> int:
    return row[0] + max(row[1:]) if len(row) == 3 else row[0]


def _cost(row: Lengths, *, packed: bool) -> int:
    """Tokens as a token budget counts them."""
    if len(row) == 2:
        return row[0]
    return sum(row) if packed else 2 * _widest(row)


def batches(
    rows: Sequence[Lengths], recipe: Recipe, settings: TrainingSettings, *, packed: bool
) -> list[list[Lengths]]:
    """The rows of each forward of an epoch, in an order that is as likely as the training's own."""
    size = settings.per_device_train_batch_size
    step = size * settings.gradient_accumulation_steps
    order = list(rows)
    if settings.batching == "length":
        costs = [_cost(row, packed=packed) for row in rows]
        order = [rows[place] for place in LengthSampler(costs, step * recipe.launch.num_processes, recipe.seed)]
    else:
        random.Random(recipe.seed).shuffle(order)
    budget = settings.max_tokens_per_batch
    if budget is None:
        return [order[i : i + size] for i in range(0, len(order), size)]
    steps = [order[i : i + step] for i in range(0, len(order), step)]
    return [
        [some[place] for place in part]
        for some in steps
        for part in within_budget([_cost(row, packed=packed) for row in some], budget, padded=not packed)
    ]


def forecast(
    shape: Shape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    common: int = 0,
) -> Forecast:
    """Foresee one training stage.

    Args:
        shape: The model's sizes.
        recipe: Precision, quantization and what is trained.
        settings: The stage's section.
        rows: Tokens of each of its rows, at least one.
        precision: Where and in which numbers.
        common: As ``common_tokens`` gives it.
    """
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_step *= recipe.launch.num_processes
    epoch_steps = math.ceil(len(rows) / per_step)
    steps = settings.max_steps if settings.max_steps > 0 else math.ceil(epoch_steps * settings.num_train_epochs)
    epochs = steps / epoch_steps
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    forwards = _forwards(rows, recipe, settings, packed=shape.packed, common=common)
    whole = sum(forwards, Work(0, 0, 0))
    products = head_products(shape, rank, precision, kernels=kernels_wanted(settings))
    arithmetic = training_flops(shape, whole, rank, head_products=products, recompute=settings.gradient_checkpointing)
    return Forecast(
        rows=len(rows),
        tokens=round(whole.tokens * epochs),
        scored=round(whole.scored * epochs),
        steps=steps,
        forward=epochs * forward_flops(shape, whole, rank),
        training=epochs * arithmetic,
        memory=_peak(shape, recipe, settings, rows, precision, common),
    )


def head_products(shape: Shape, rank: int, precision: Precision, *, kernels: bool = True) -> int:
    """Matrix products of the head's backward: one where its forward ends the gradient, else logits are made again."""
    own = kernels and precision.device.type == "cpu" and precision.compute is torch.float32
    return 1 if rank and own and shape.packed else 2 if rank else 3


def _largest(forwards: Sequence[Work]) -> Work:
    return max(forwards, key=lambda each: each.tokens)


def _peak(
    shape: Shape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    common: int,
) -> Memory:
    """Memory of the largest forward of an epoch shuffled by the seed."""
    forwards = _forwards(rows, recipe, settings, packed=shape.packed, common=common)
    accumulates = len(forwards) > _process_steps(rows, settings)
    return peak_memory(shape, recipe, settings, _largest(forwards), precision, accumulates=accumulates)


def _process_steps(rows: Sequence[Lengths], settings: TrainingSettings) -> int:
    """Optimizer steps of an epoch if one process had all rows: with more forwards than these, gradients wait."""
    return math.ceil(len(rows) / (settings.per_device_train_batch_size * settings.gradient_accumulation_steps))


@dataclass(frozen=True, slots=True)
class Change:
    """Settings with which a stage fits.

    Attributes:
        settings: By name, as a recipe has them.
        cut: Rows whose prompts lose their beginning to a shorter ``max_seq_length``.
        dropped: Rows that it sets aside, since their response does not fit.
    """

    settings: Mapping[str, object]
    cut: int = 0
    dropped: int = 0

    def __str__(self) -> str:
        """For people, as lines of a recipe."""
        named = ", ".join(f"{name}: {str(value).lower()}" for name, value in self.settings.items())
        costs = f" (cuts the prompts of {self.cut} rows and sets {self.dropped} aside)"
        return named + (costs if "max_seq_length" in self.settings else "")


def nearest_that_fits(
    shape: Shape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    room: float,
    common: int = 0,
) -> Change | None:
    """The mildest of the usual changes with which a stage fits into ``room`` bytes; None if none does.

    Mildest first: smaller forwards of the same step, activations computed again, an 8-bit optimizer, 4-bit weights, an
    adapter instead of all weights; shorter rows last, since they alone cost data.
    """
    for limit in _limits(rows, settings):
        kept = [short for row in rows if (short := shortened(row, limit)) is not None]
        if not kept:
            return None
        for named, given, trial in _trials(recipe, settings):
            held = replace(precision, weights=torch.float32 if given.tuning == "full" else precision.compute)
            limited = trial.model_copy(update={"max_seq_length": limit})
            need = _peak(shape, given, limited, kept, held, common)
            if need.total <= room:
                if limit == settings.max_seq_length:
                    return Change(named)
                cut = sum(shortened(row, limit) not in (row, None) for row in rows)
                return Change({**named, "max_seq_length": limit}, cut, len(rows) - len(kept))
    return None


def _trials(recipe: Recipe, settings: TrainingSettings) -> Iterator[tuple[dict[str, object], Recipe, TrainingSettings]]:
    """What is changed, and the recipe and the section with it."""
    ways = [("lora", four_bit) for four_bit in sorted({recipe.use_4bit, True})]
    if recipe.tuning == "full":
        ways.insert(0, ("full", False))
    now = {**settings.model_dump(), "tuning": recipe.tuning, "use_4bit": recipe.use_4bit}
    for tuning, four_bit in ways:
        for optim in dict.fromkeys((settings.optim, "paged_adamw_8bit")):
            for again in sorted({settings.gradient_checkpointing, True}):
                for batch in [{}, *_smaller_batches(settings)]:
                    top: dict[str, object] = {"tuning": tuning, "use_4bit": four_bit}
                    own: dict[str, object] = {**batch, "gradient_checkpointing": again, "optim": optim}
                    named = {name: value for name, value in {**own, **top}.items() if value != now[name]}
                    yield named, recipe.model_copy(update=top), settings.model_copy(update=own)


def _limits(rows: Sequence[Lengths], settings: TrainingSettings) -> Iterator[int]:
    """The recipe's own limit, then halves of it, as far as they are shorter than the longest row."""
    limit, longest = settings.max_seq_length, max(map(_widest, rows))
    yield limit
    while (limit := limit // 2) >= _SHORTEST:
        if limit < longest:
            yield limit


def shortened(row: Lengths, limit: int) -> Lengths | None:
    """A row cut at the beginning of its prompt to ``limit`` tokens; None where its response leaves no prompt."""
    room = limit - max(row[1:])
    if room < 1:
        return None
    return (min(row[0], room), *row[1:]) if len(row) == 3 else (min(row[0], limit), row[1])


def _smaller_batches(settings: TrainingSettings) -> Iterator[dict[str, int]]:
    while less := smaller_batch(settings):
        yield less
        settings = settings.model_copy(update=less)


def foreseen(
    model: LanguageModel,
    recipe: Recipe,
    settings: TrainingSettings,
    lengths: Sequence[Lengths],
    precision: Precision,
    common: int = 0,
    targets: str | Sequence[str] | None = None,
) -> Memory | None:
    """What training a loaded model on rows of these lengths will take at its peak; None where nobody can say.

    ``targets`` are the modules of an adapter that is there already; the recipe names others' by itself.
    """
    try:
        shape = shape_of(model.config, settings.lora_target_modules if targets is None else targets)
    except UnknownShapeError:  # a model of another build trains all the same
        return None
    return _peak(shape, recipe, settings, lengths, precision, common)
