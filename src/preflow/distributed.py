"""The processes of one ``accelerate launch``, as far as sharing out rows needs them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

#: Settings of a launch that let accelerate and transformers load a model in parts, for a trainer to put together. Here
#: every rank scores with a whole model of its own.
_SHARDING = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_DEEPSPEED")


def _alone() -> None:
    """There is nobody to wait for."""


def _only(value: Any) -> list[Any]:
    """What this process has is all there is."""
    return [value]


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that fill a store together.

    Attributes:
        index: This process's number.
        size: How many there are.
        meet: Returns when all of them have called it.
        gather: Gives every process what each of them called it with, in the order of their numbers.
    """

    index: int = 0
    size: int = 1
    meet: Callable[[], None] = _alone
    gather: Callable[[Any], list[Any]] = _only

    def owns(self, key: bytes) -> bool:
        """Whether this process begins with a row; exactly one does."""
        return int.from_bytes(key[:8], "little") % self.size == self.index


def launched() -> Ranks:
    """The ranks of ``accelerate launch``, each on a device of its own; this process alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks()
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    for name in _SHARDING:
        os.environ.pop(name, None)
    # Ranks that are done wait for the slowest: the usual limit of half an hour is too short for large sets.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return Ranks(
        state.process_index, state.num_processes, state.wait_for_everyone, lambda value: gather_object([value])
    )


def several() -> bool:
    """Whether this process trains together with others."""
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized() and _size() > 1


def _size() -> int:
    import torch

    return torch.distributed.get_world_size()


def anywhere(flag: bool, device: Any) -> bool:
    """Whether something holds in any process; all of them ask.

    What one process alone saw must not take it another way: the others would wait for it in their next forward.

    Args:
        flag: Whether it holds in this process.
        device: Where this process trains.
    """
    if not several():
        return flag
    import torch

    seen = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(seen)
    return bool(seen)


def of_all(value: Any) -> list[Any]:
    """What every process called this with, in the order of their numbers."""
    if not several():
        return [value]
    import torch

    values = [None] * _size()
    torch.distributed.all_gather_object(values, value)
    return values


def of_first(value: Any) -> Any:
    """What process 0 called this with: where processes must decide alike, and their own last bits might differ."""
    if not several():
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def leave() -> None:
    """End the processes' talk with each other, once all is done: a process that exits in its midst may be aborted."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
