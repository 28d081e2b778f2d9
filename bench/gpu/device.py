"""What the check ran on: the GPU with its measured rates, and the versions."""

import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.gpu.workload import Workload
from bench.parts.contenders import MatrixRate

_PACKAGES = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "bitsandbytes")


def versions() -> dict[str, str]:
    """Python and the packages that decide figures."""
    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def run(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """The GPU, its rate of matrix products and of copies."""
    del out
    device = work.precision.device
    about: dict[str, Any] = {"name": f"CPU, {torch.get_num_threads()} threads"}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        about = {
            "name": found.name,
            "memory_gib": round(found.total_memory / 2**30, 1),
            "multiprocessors": found.multi_processor_count,
            "capability": f"{found.major}.{found.minor}",
        }
    yield {**about, "versions": versions()}
    rate = MatrixRate(work.matrix, work.matrix, work.matrix, work.precision)
    for _ in range(1 if work.dry else 3):
        rate.measure()
    yield {"matrix_tflops": round(rate.value() / 1e12, 2), "matrix": work.matrix, "copy_gb_per_second": _copy(work)}


def _copy(work: Workload) -> float:
    """Gigabytes read and written per second by copying a tensor that no cache holds."""
    device = work.precision.device
    source = torch.randint(0, 127, (2**22 if work.dry else 2**32,), dtype=torch.int8, device=device)
    target, seconds = torch.empty_like(source), []
    for _ in range(5):
        begin = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return round(2 * source.nbytes / median(seconds) / 1e9, 1)
