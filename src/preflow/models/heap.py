"""What becomes of freed memory on a CPU: glibc's settings while a training runs.

These settings are those of the whole process, not of one model: other threads allocate under them too. They exist on
Linux with glibc alone, and are used where the model computes on the CPU; elsewhere nothing happens.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Parameters of glibc's mallopt(3): free memory at the heap's top that goes back, and sizes mapped by themselves.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_UNBOUNDED = 2**30
#: What glibc maps by itself to begin with; it raises this as it goes unless it is set.
_LARGE = 128 * 2**10
#: What glibc's own thresholds grow to in a process that frees large blocks: 32 MiB mapped, twice as much at the top.
_GROWN = 32 * 2**20


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Keep what is freed for what is made next, instead of handing it back to the system; at the end it goes back.

    A training step on the CPU frees and takes the same gigabyte again and again, and pages that come back from the
    system are zeroed and mapped one by one: a fifth of the step of a small model. Without glibc nothing happens.
    """
    with _thresholds(device, mapped=_UNBOUNDED, trimmed=-1):  # never
        yield


@contextmanager
def freed_memory_returned(device: torch.device) -> Iterator[None]:
    """Hand large blocks back to the system as soon as they are freed: the least memory, for more time.

    glibc (2.36) cuts an aligned block out of a larger one and keeps the cuttings in its thread's cache, where small
    objects take them: a freed block between two such cannot hold its like again. A training in 4 bits, in bfloat16,
    with checkpointing or with an adapter's dropout makes and frees many temporaries between what it keeps, and took up
    to twice its tensors' bytes in a kept heap (measured: 2.2 GiB for 1.2 in SmolLM2-135M's DPO in 4 bits).
    """
    with _thresholds(device, mapped=_LARGE, trimmed=_LARGE):
        yield


@contextmanager
def _thresholds(device: torch.device, mapped: int, trimmed: int) -> Iterator[None]:
    libc = ctypes.CDLL(None) if sys.platform == "linux" and device.type == "cpu" else None
    mallopt = getattr(libc, "mallopt", None)  # glibc's alone
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, mapped)
    mallopt(_TRIM_THRESHOLD, trimmed)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _GROWN)
        mallopt(_TRIM_THRESHOLD, 2 * _GROWN)
        hand_back()


def hand_back() -> None:
    """Give what is freed back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's alone
    if trim is not None:
        trim(0)
