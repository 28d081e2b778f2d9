"""The ranks of a distributed run: which one this process is, and the collective operations they share.

Every function works without a launch too, where this process is rank 0 of one. torch is imported where it is needed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

#: Settings of a launch that make accelerate and transformers load a model in shards for a trainer. The ranks that fill
#: the store of log-probs each score with a full model of their own.
_SHARDING = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_DEEPSPEED")


def _no_barrier() -> None:
    """A single rank has none to wait for."""


def _single(value: Any) -> list[Any]:
    """A single rank gathers its own value."""
    return [value]


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the ranks that fill a store together.

    Attributes:
        index: This process's rank.
        size: How many ranks there are (the world size).
        barrier: Returns when every rank has called it.
        gather: Returns on every rank the values that all ranks passed, ordered by rank.
    """

    index: int = 0
    size: int = 1
    barrier: Callable[[], None] = _no_barrier
    gather: Callable[[Any], list[Any]] = _single

    def owns(self, key: bytes) -> bool:
        """Whether this rank computes a row first; every row has exactly one owner."""
        return int.from_bytes(key[:8], "little") % self.size == self.index


def current_ranks() -> Ranks:
    """The ranks of ``accelerate launch``, each on its own device; a single rank without a launch."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks()
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    for name in _SHARDING:
        os.environ.pop(name, None)
    # Ranks that are done wait for the slowest: the default timeout of half an hour is too short for large sets.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return Ranks(
        state.process_index, state.num_processes, state.wait_for_everyone, lambda value: gather_object([value])
    )


def is_distributed() -> bool:
    """Whether this process trains together with other ranks."""
    return _initialized() and _world_size() > 1


def is_rank0() -> bool:
    """Whether this process writes the files: rank 0 of a distributed run, or the only process."""
    import torch

    return not _initialized() or torch.distributed.get_rank() == 0


def _initialized() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _world_size() -> int:
    import torch

    return torch.distributed.get_world_size()


def any_rank(flag: bool, device: Any) -> bool:
    """Whether a flag is set on any rank. Collective: every rank calls it.

    A rank that alone took another branch would leave the others waiting in their next forward.

    Args:
        flag: This rank's flag.
        device: The device on which this rank trains.
    """
    if not is_distributed():
        return flag
    import torch

    total = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(total)
    return bool(total)


def all_gather_objects(value: Any) -> list[Any]:
    """The values that all ranks passed, ordered by rank. Collective: every rank calls it."""
    if not is_distributed():
        return [value]
    import torch

    values = [None] * _world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def broadcast_from_rank0(value: Any) -> Any:
    """The value that rank 0 passed, for decisions that must not differ in a rank's last bits. Collective."""
    if not is_distributed():
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def shut_down() -> None:
    """Wait for all ranks and destroy the process group: a rank that exits during communication may be aborted."""
    if not _initialized():
        return
    import torch

    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
