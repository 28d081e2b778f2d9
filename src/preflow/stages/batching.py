"""Which rows share a forward, and how many: shuffled by seed, within a token budget, and halved where memory ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from preflow.config import Recipe
from preflow.errors import ConfigError
from preflow.observer import Observer
from preflow.stages import ranks
from preflow.stages.guards import ROW
from preflow.training_settings import TrainingSettings

Result = TypeVar("Result")
_FEW_TOKENS = 16


class LengthSampler(Sampler[int]):
    """All rows once an epoch, rows of like length near each other, in an order that seed and epoch alone decide."""

    def __init__(self, lengths: Sequence[int], rows: int, seed: int) -> None:
        """Sample.

        Args:
            lengths: Tokens of every row.
            rows: Rows per optimizer step; within these, order is by length.
            seed: Of the order.
        """
        self.lengths, self.rows, self.seed, self.epoch = list(lengths), rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew; called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows per epoch."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Row numbers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = get_length_grouped_indices(self.lengths, self.rows, generator=generator)  # type: ignore[no-untyped-call]
        return iter(order)


class Batched:
    """Mixin before a trainer: rows of like length together, and a step's rows within a token budget, if asked for."""

    lengths: Sequence[int] = ()
    by_length = False
    budget: int | None = None
    padded = False

    def batch(self, settings: TrainingSettings, lengths: Sequence[int], *, padded: bool) -> None:
        """Batch as a recipe says.

        Args:
            settings: The stage's section.
            lengths: Tokens of every row.
            padded: Whether a forward pads its rows to the longest of them.

        Raises:
            ConfigError: A token budget under DeepSpeed, which steps its optimizer within the backward.
        """
        trainer: Any = self
        if settings.max_tokens_per_batch and trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ConfigError(
                f"max_tokens_per_batch is {settings.max_tokens_per_batch}, but DeepSpeed counts the forwards of a step "
                "itself: remove it, or launch with DDP or FSDP"
            )
        self.lengths, self.padded = lengths, padded
        self.by_length, self.budget = settings.batching == "length", settings.max_tokens_per_batch

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = self
        if not self.by_length:
            return super()._get_train_sampler(*args, **kwargs)  # type: ignore[misc]
        rows = trainer._train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        return LengthSampler(self.lengths, rows, trainer.args.data_seed)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """A step's rows of this process in as many forwards as the budget takes; without one, as they come."""
        own: Any = super()
        if self.budget is None:
            return own.training_step(model, inputs, *args, **kwargs)
        trainer: Any = self
        rows = inputs[ROW].tolist()
        parts = self._forwards(rows)
        losses: list[torch.Tensor] = []
        for part in parts:
            batch = trainer.data_collator([trainer.train_dataset[row] for row in part])
            last = len(losses) == len(parts) - 1
            # The trainer divides a forward's mean by this: the mean over all rows of the step remains.
            trainer.current_gradient_accumulation_steps = len(rows) / len(part)
            with nullcontext() if last else trainer.accelerator.no_sync(model):
                losses.append(own.training_step(model, batch, *args, **kwargs))
        return torch.stack(losses).sum()

    def _forwards(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows shared out; every process does as many forwards, since sharded weights are gathered in each."""
        trainer: Any = self
        assert self.budget is not None
        parts = within_budget([self.lengths[row] for row in rows], self.budget, padded=self.padded)
        if trainer.accelerator.num_processes > 1:
            count = torch.tensor([len(parts)], device=trainer.accelerator.device)
            parts = in_more_parts(parts, int(trainer.accelerator.gather(count).max()))
        return [[rows[place] for place in part] for part in parts]


def within_budget(lengths: Sequence[int], budget: int, *, padded: bool) -> list[list[int]]:
    """Share rows out so that no part has more tokens than a budget, but for rows that alone have more.

    Args:
        lengths: Tokens of each row.
        budget: Tokens of a part.
        padded: Count every row of a part as long as its longest.

    Returns:
        Places in ``lengths``, each once, longest first.
    """
    parts: list[list[int]] = []
    used = longest = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        cost = longest if padded else lengths[place]
        if not parts or used + cost > budget:
            parts.append([])
            used, longest = 0, lengths[place]
            cost = lengths[place]
        parts[-1].append(place)
        used += cost
    return parts


def in_more_parts(parts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The same rows in ``count`` parts, the largest halved; there are at least as many rows."""
    found = [list(part) for part in parts]
    while len(found) < count:
        largest = max(found, key=len)
        found.remove(largest)
        found += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return found


def smaller(settings: TrainingSettings) -> dict[str, int] | None:
    """The settings of the next smaller forward with the same rows per optimizer step; None where there is none."""
    budget = settings.max_tokens_per_batch
    if budget is not None:
        # Below the shortest of rows that there are, every row runs alone anyway.
        return {"max_tokens_per_batch": budget // 2} if budget >= 2 * _FEW_TOKENS else None
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    fitting = [size for size in range(1, settings.per_device_train_batch_size // 2 + 1) if rows % size == 0]
    if not fitting:
        return None
    return {"per_device_train_batch_size": fitting[-1], "gradient_accumulation_steps": rows // fitting[-1]}


def within_memory(recipe: Recipe, stage: str, work: Callable[[Recipe], Result], observer: Observer) -> Result:
    """Do a training stage's work, with smaller batches when memory runs out and the recipe allows it.

    The work starts again from the last whole checkpoint; every optimizer step sees the same rows. Of several processes
    none tries again alone, since the others would wait for it in the midst of a step: all end, and whoever launched
    them launches them again.

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
            less = smaller(settings)
            again = settings.auto_find_batch_size and should_reduce_batch_size(error) and not ranks.several()
            if not again or less is None:
                raise
        clear_device_cache(garbage_collection=True)
        tried = ", ".join(f"{name} {value}" for name, value in less.items())
        before = ", ".join(f"{name} {getattr(settings, name)}" for name in less)
        observer.note(
            f"{stage}: out of memory with {before}; trying {tried}, so that an optimizer step still sees the same rows"
        )
        recipe = recipe.model_copy(update={stage: settings.model_copy(update=less)})
