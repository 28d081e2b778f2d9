"""How much memory there is, and how much a piece of work takes at its peak above what was in use before."""

import os
import re
import resource
import sys
from pathlib import Path

import torch

from preflow.models.heap import hand_back
from preflow.models.out_of_memory import free_unused

_MIB = 1024
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
