"""The order of rows: shuffled by seed and epoch, rows of like length near each other."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


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
        """Shuffle anew; the loader calls it before each epoch, since ``TokenBudgetBatching`` sets it as its sampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows per epoch."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Row numbers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = get_length_grouped_indices(self.lengths, self.rows, generator=generator)  # type: ignore[no-untyped-call]
        return iter(order)
