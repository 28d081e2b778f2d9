"""How much memory a piece of work takes at its peak, above what was in use before; what becomes of freed memory."""

import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

T = TypeVar("T")
R = TypeVar("R")

_MIB = 1024
#: Parameters of glibc's mallopt(3): free memory at the heap's top that goes back, and sizes mapped by themselves.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_UNBOUNDED = 2**30
#: What glibc maps by itself to begin with; it raises this as it goes unless it is set.
_LARGE = 128 * 2**10
#: What glibc's own thresholds grow to in a process that frees large blocks: 32 MiB mapped, twice as much at the top.
_GROWN = 32 * 2**20
_PAGE = 4096
#: Where Linux tells a container how much memory it may take: control groups of version 2, and of version 1.
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_GROUPS = Path("/sys/fs/cgroup")
#: Written to, it resets the peak of resident memory; see proc(5).
_CLEAR = Path("/proc/self/clear_refs")


def machine_memory(groups: Path = _GROUPS) -> int:
    """Bytes that this process may take: the machine's memory, or less where its container has a limit.

    Args:
        groups: Where the control groups of the container lie.
    """
    limits = [file.read_text(encoding="ascii").strip() for name in _LIMITS if (file := groups / name).is_file()]
    numbers = [int(limit) for limit in limits if limit.isdecimal()]  # without a limit version 2 says "max"
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *numbers])


class PeakMemory:
    """Measures from its making on: on a GPU what PyTorch allocates, elsewhere this process's resident memory."""

    def __init__(self, device: torch.device, model: torch.nn.Module | None = None) -> None:
        """Begin; freed memory is handed back to the system first, so that it does not count as in use.

        Args:
            device: Where the work runs.
            model: Counts as in use from the beginning, though its weights may be mapped from a file and not read yet.
        """
        self.device = device
        if device.type == "cpu" and model is not None:
            _read(model)
        free_unused()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.idle, self.measures = torch.cuda.memory_allocated(device), True
        else:
            self.measures = _forget_peak()
            self.idle = _resident("VmRSS")

    def peak(self) -> int:
        """Bytes in use at the highest since the beginning."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM")

    def now(self) -> int:
        """Bytes in use above the beginning; on the CPU also freed ones that were not handed back. Linux and GPUs."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device) - self.idle
        return _resident("VmRSS") - self.idle

    def above_idle(self) -> int | None:
        """Bytes at the highest above the beginning; None where the system would not forget an earlier peak."""
        return max(0, self.peak() - self.idle) if self.measures else None


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


def free_unused() -> None:
    """Free models that nobody uses any more, on a GPU too.

    Trainers, trained models and 4-bit ones hold themselves in cycles, which Python frees when it happens to look: until
    then a card would hold the model of every earlier step beside the next one's.
    """
    clear_device_cache(garbage_collection=True)


def run_in_halving_batches(
    items: Sequence[T],
    size: int,
    run: Callable[[Sequence[T]], R],
    tell: Callable[[int, int], None],
    *,
    may: bool = True,
) -> Iterator[tuple[Sequence[T], R]]:
    """Run items in batches, in order: from where memory runs out on in ones of half the size.

    Args:
        items: All of them.
        size: Of a batch, to begin with.
        run: On a batch.
        tell: Hears the size that did not fit, and the next one.
        may: Whether sizes may change: not where several processes go through the batches together.

    Yields:
        Every batch with its result.

    Raises:
        RuntimeError: Memory ran out for one item alone, or something else was wrong.
    """
    done = 0
    while done < len(items):
        batch = items[done : done + size]
        try:
            result = [run(batch)]
        except RuntimeError as error:
            if len(batch) == 1 or not may or not should_reduce_batch_size(error):
                raise
            result = []
        if result:
            yield batch, result[0]
            done += len(batch)
            continue
        free_unused()  # here, where no traceback holds what did not fit any more
        size = len(batch) // 2
        tell(len(batch), size)


def hand_back() -> None:
    """Give what is freed back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's alone
    if trim is not None:
        trim(0)


def _read(model: torch.nn.Module) -> None:
    """Touch every page of a model's weights."""
    for weights in model.parameters():
        weights.detach().flatten()[:: max(1, _PAGE // weights.element_size())].sum()


def _forget_peak() -> bool:
    """Begin the peak of resident memory anew; whether the system let it."""
    hand_back()
    if sys.platform == "linux":
        try:
            _CLEAR.write_text("5", encoding="ascii")
        except OSError:  # a sandbox without it, or with /proc read-only
            return False
    return True


def _resident(name: str) -> int:
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS; the peak is that of the process
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {name}"
    return int(found[1]) * _MIB
