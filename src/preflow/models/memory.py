"""How much memory a piece of work takes at its peak, above what was in use when it began."""

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import torch

_MIB = 1024
_PAGE = 4096


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
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.idle = torch.cuda.memory_allocated(device)
        else:
            _forget_peak()
            self.idle = _resident("VmRSS")

    def peak(self) -> int:
        """Bytes in use at the highest since the beginning."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM")

    def above_idle(self) -> int:
        """Bytes at the highest above the beginning."""
        return max(0, self.peak() - self.idle)


def _read(model: torch.nn.Module) -> None:
    """Touch every page of a model's weights."""
    for weights in model.parameters():
        weights.detach().flatten()[:: max(1, _PAGE // weights.element_size())].sum()


def _forget_peak() -> None:
    gc.collect()  # a trainer that is gone holds its model in a cycle
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)


def _resident(name: str) -> int:
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS; the peak is that of the process
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {name}"
    return int(found[1]) * _MIB
