"""Which rows share a batch, and how many: shuffled by seed, and halved where memory does not suffice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from preflow.config import Recipe, TrainingSettings
from preflow.observer import Observer

Result = TypeVar("Result")


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
    """Mixin before a trainer: batches by length where asked for."""

    lengths: Sequence[int] | None = None

    def batch_by_length(self, lengths: Sequence[int]) -> None:
        """Group rows of these lengths."""
        self.lengths = lengths

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = self
        if self.lengths is None:
            return super()._get_train_sampler(*args, **kwargs)  # type: ignore[misc]
        rows = trainer._train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        return LengthSampler(self.lengths, rows, trainer.args.data_seed)


def smaller(settings: TrainingSettings) -> tuple[int, int] | None:
    """The next smaller batch with the same rows per optimizer step, and its accumulation; None where there is none."""
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    fitting = [size for size in range(1, settings.per_device_train_batch_size // 2 + 1) if rows % size == 0]
    return (fitting[-1], rows // fitting[-1]) if fitting else None


def within_memory(recipe: Recipe, stage: str, work: Callable[[Recipe], Result], observer: Observer) -> Result:
    """Do a training stage's work, with smaller batches when memory runs out and the recipe allows it.

    The work starts again from the last whole checkpoint; every optimizer step sees the same rows.

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
            if not (settings.auto_find_batch_size and should_reduce_batch_size(error)) or less is None:
                raise
        clear_device_cache(garbage_collection=True)
        names = {"per_device_train_batch_size": less[0], "gradient_accumulation_steps": less[1]}
        observer.note(
            f"{stage}: out of memory with {settings.per_device_train_batch_size} rows a forward; trying {less[0]}, and "
            f"{less[1]} forwards per optimizer step, so that a step still sees {less[0] * less[1]} rows"
        )
        recipe = recipe.model_copy(update={stage: settings.model_copy(update=names)})
