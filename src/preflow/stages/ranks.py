"""The processes of one ``accelerate launch``, as far as sharing out rows needs them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


def _alone() -> None:
    """There is nobody to wait for."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that fill a store together.

    Attributes:
        index: This process's number.
        size: How many there are.
        meet: Returns when all of them have called it.
    """

    index: int = 0
    size: int = 1
    meet: Callable[[], None] = _alone

    def owns(self, key: bytes) -> bool:
        """Whether this process begins with a row; exactly one does."""
        return int.from_bytes(key[:8], "little") % self.size == self.index


def launched() -> Ranks:
    """The ranks of ``accelerate launch``, each on a device of its own; this process alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks()
    import torch
    from accelerate import PartialState

    # Ranks that are done wait for the slowest: the usual limit of half an hour is too short for large sets.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return Ranks(state.process_index, state.num_processes, state.wait_for_everyone)
