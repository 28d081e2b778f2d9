"""The device a plan is made for: the one found, or one that is only named."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from preflow.config import Recipe
    from preflow.models.precision import Precision

#: Share of a device's memory that a run can use; driver and fragmentation need the rest.
USABLE = 0.92
#: Widths of the product that measures a device's rate: large enough that its start and end hardly count.
_WIDTHS = {"cpu": 2048, "cuda": 8192}


class DeviceChoice(StrEnum):
    """Which device a plan is for."""

    AUTO = "auto"
    CPU = "cpu"


class Device(NamedTuple):
    """A device with what a plan needs to know of it."""

    name: str
    precision: "Precision"
    available: float
    """Bytes that a stage can use."""
    rate: float | None
    """Floating-point operations per second; None where neither given nor measured."""


def device_for(
    recipe: "Recipe", memory: float | None, rate: float | None, choice: DeviceChoice = DeviceChoice.AUTO
) -> Device:
    """The device found, with its measured rate, or a target device of ``memory`` GB, with the ``rate`` given."""
    from preflow.models.precision import choose_precision

    given = None if rate is None else rate * 1e12
    auto = choice is DeviceChoice.AUTO
    if memory is not None:
        what, precision = ("a GPU", on_gpu(recipe)) if auto else ("a CPU", on_cpu(recipe))
        return Device(f"{what} of {memory:g} GB", precision, memory * 1e9 * USABLE, given)
    here = choose_precision(recipe) if auto else on_cpu(recipe)
    found, speed = found_memory(here.device), given or measured_rate(here)
    return Device(f"this machine ({here.device.type}, {found / 1e9:.0f} GB)", here, found * USABLE, speed)


def on_gpu(recipe: "Recipe") -> "Precision":
    """The precision of a recipe on a target GPU: bfloat16, unless the recipe says otherwise."""
    import torch

    from preflow.models.precision import Precision

    compute = torch.float32 if recipe.bf16 is False else torch.bfloat16
    weights = torch.float32 if recipe.tuning == "full" else compute
    return Precision(torch.device("cuda"), weights, compute)


def on_cpu(recipe: "Recipe") -> "Precision":
    """The precision of a recipe on a CPU: float32, unless the recipe asks for bfloat16."""
    import torch

    from preflow.models.precision import Precision

    compute = torch.bfloat16 if recipe.bf16 is True else torch.float32
    weights = torch.float32 if recipe.tuning == "full" else compute
    return Precision(torch.device("cpu"), weights, compute)


def found_memory(device: "torch.device") -> float:
    """Bytes of the GPU found, or of this machine or container."""
    import torch

    from preflow.models.peak_memory import machine_memory

    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(machine_memory())


def measured_rate(precision: "Precision") -> float:
    """Floating-point operations per second of one large matrix product in the compute dtype, the best of four."""
    import torch

    width = _WIDTHS[precision.device.type]
    a = torch.ones(width, width, device=precision.device, dtype=precision.compute)
    best = 0.0
    for _ in range(4):  # the first one warms up
        begin = time.perf_counter()
        float((a @ a)[0, 0])  # waits for a GPU
        best = max(best, 2 * width**3 / (time.perf_counter() - begin))
    return best
