"""Which rows share a forward: rows of like length together, and an effective batch within a budget of tokens."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import should_reduce_batch_size

from preflow import distributed
from preflow.config.training import TrainingSettings
from preflow.errors import ConfigError
from preflow.models.packed.layout import IGNORED
from preflow.training.numerical_checks import ROW
from preflow.training.sampler import LengthSampler
from preflow.training.step_metrics import weighted_step_metrics, weights_of
from preflow.training.trl_trainer import as_trainer

#: In a batch: the rows of this process and how many all have, where that is not as many rows in each.
_SHARE = "share"


class TokenBudgetBatching:
    """Mixin before a trainer: rows of like length together, and an effective batch within a token budget."""

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
        trainer = as_trainer(self)
        if settings.max_tokens_per_batch and trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ConfigError(
                f"max_tokens_per_batch is {settings.max_tokens_per_batch}, but DeepSpeed counts the micro-batches "
                "itself: remove it, or launch with DDP or FSDP"
            )
        self.lengths, self.padded = lengths, padded
        self.by_length, self.budget = settings.batching == "length", settings.max_tokens_per_batch

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        trainer = as_trainer(self)
        if not self.by_length:
            return super()._get_train_sampler(*args, **kwargs)  # type: ignore[misc]
        rows = trainer._train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        self._sampler = LengthSampler(self.lengths, rows, trainer.args.data_seed)
        return self._sampler

    def get_train_dataloader(self) -> Any:
        """TRL's, which tells its sampler of every new epoch, also behind the batches that a resumed one skips.

        accelerate looks for a sampler in fewer places than its own wrappers can put it: of two processes that resume
        in a later epoch each would take the first epoch's order for the rest of it.
        """
        loader = super().get_train_dataloader()  # type: ignore[misc]
        if self.by_length:
            loader.set_sampler(self._sampler)
        return loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The batches of a step, in an epoch's last one without the rows that accelerate repeats to fill it.

        It gives every process a full batch, of rows from the epoch's beginning where there are no others, which would
        then be learnt from twice. What is left is distributed evenly instead.
        """
        own: Any = super()
        trainer = as_trainer(self)
        batches, items = own.get_batch_samples(*args, **kwargs)
        total = self._rows_left()
        if not total or not batches:
            return batches, items
        batches[-1] = self._own_share(batches[-1], total)
        # accelerate has read to the end by now, and would take the others' metrics for those of the last rows too.
        processes = trainer.accelerator.num_processes
        for batch in batches[:-1]:
            rows = batch[ROW].tolist()
            batch[_SHARE] = (rows, len(rows) * processes)
        return batches, trainer._get_num_items_in_batch(batches, trainer.args.device)

    def _rows_left(self) -> int:
        """Rows of the last forward of all processes in an epoch, where it is in this step and they do not fill it."""
        trainer = as_trainer(self)
        full = trainer._train_batch_size * trainer.accelerator.num_processes
        rows = len(trainer.train_dataset)
        steps = math.ceil(math.ceil(rows / full) / trainer.args.gradient_accumulation_steps)
        last = (trainer.state.global_step + 1) % steps == 0
        return rows % full if last and trainer.accelerator.num_processes > 1 else 0

    def _own_share(self, batch: Any, total: int) -> Any:
        trainer = as_trainer(self)
        # accelerate fills up after the rows that are left, the processes in order.
        left = [row for rows in distributed.all_gather_objects(batch[ROW].tolist()) for row in rows][:total]
        rows = left[trainer.accelerator.process_index :: trainer.accelerator.num_processes]
        return {**trainer._prepare_inputs(self._collated(rows, left[0])), _SHARE: (rows, total)}

    def _collated(self, rows: Sequence[int], instead: int) -> Any:
        """A batch of rows; of none, one row that teaches nothing, since every process must do as many forwards."""
        trainer = as_trainer(self)
        batch = trainer.data_collator([trainer.train_dataset[row] for row in rows or [instead]])
        if not rows and "labels" in batch:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """This rank's rows of an optimizer step in as many micro-batches as the budget takes."""
        own: Any = super()
        share = inputs.pop(_SHARE, None)
        if self.budget is None and share is None:
            return own.training_step(model, inputs, *args, **kwargs)
        trainer = as_trainer(self)
        given, processes = inputs[ROW].tolist(), trainer.accelerator.num_processes
        rows, total = share or (given, len(given) * processes)
        parts = [rows] if self.budget is None else self._forwards(rows)
        losses: list[torch.Tensor] = []
        weights: list[dict[str, int]] = []
        steps = trainer.current_gradient_accumulation_steps
        with weighted_step_metrics(trainer, weights):
            for part in parts:
                batch = self._collated(part, given[0])
                weights.append(weights_of(batch, len(part)))
                # The trainer divides a forward's mean by this, and takes the mean of all processes: the mean over all
                # rows remains. Without rows nothing does.
                trainer.current_gradient_accumulation_steps = (
                    steps * total / (len(part) * processes) if part else math.inf
                )
                last = len(losses) == len(parts) - 1
                with nullcontext() if last else trainer.accelerator.no_sync(model), self._size_told(part):
                    losses.append(own.training_step(model, batch, *args, **kwargs))
        trainer.current_gradient_accumulation_steps = steps
        return torch.stack(losses).sum()

    @contextmanager
    def _size_told(self, part: Sequence[int]) -> Iterator[None]:
        """Let an error for want of memory say how large the forward was that it stopped."""
        try:
            yield
        except RuntimeError as error:
            if should_reduce_batch_size(error):
                lengths = [self.lengths[row] for row in part]
                tokens = max(lengths, default=0) * len(part) if self.padded else sum(lengths)
                error.add_note(f"This forward had {tokens} tokens in {len(part)} rows.")
            raise

    def _forwards(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows split; every process does as many forwards, since sharded weights are gathered in each."""
        trainer = as_trainer(self)
        assert self.budget is not None
        parts = within_budget([self.lengths[row] for row in rows], self.budget, padded=self.padded)
        if trainer.accelerator.num_processes > 1:
            count = torch.tensor([len(parts)], device=trainer.accelerator.device)
            parts = split_to_count(parts, int(trainer.accelerator.gather(count).max()))
        return [[rows[place] for place in part] for part in parts]


def within_budget(lengths: Sequence[int], budget: int, *, padded: bool) -> list[list[int]]:
    """Split rows so that no part has more tokens than a budget, but for rows that alone have more.

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


def split_to_count(parts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The same rows in ``count`` parts, the largest halved; empty ones where there are too few rows."""
    found = [list(part) for part in parts]
    while len(found) < count:
        largest = max(found, key=len, default=[])
        if len(largest) < 2:
            found.append([])
            continue
        found.remove(largest)
        found += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return found
