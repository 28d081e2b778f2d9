"""What a plan is made for: the machine at hand, or a device that is only named."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from preflow.config import Recipe
    from preflow.models.precision import Precision

#: Share of a device's memory that a run can have; the driver and fragmentation take the rest.
USABLE = 0.92
#: Of the products that measure a device's rate: long enough that beginning and end count for little.
_WIDTHS = {"cpu": 2048, "cuda": 8192}


class Kind(StrEnum):
    """Of device."""

    AUTO = "auto"
    CPU = "cpu"


class Device(NamedTuple):
    """What a stage is to run on."""

    name: str
    precision: "Precision"
    room: float
    """Bytes that a stage may take."""
    rate: float | None
    """Operations per second; none where nobody has measured any."""


def device_for(recipe: "Recipe", memory: float | None, rate: float | None, kind: Kind = Kind.AUTO) -> Device:
    """The device found, with its measured rate, or one of so many GB, whose rate nobody has measured here."""
    from preflow.models.precision import choose_precision

    given = None if rate is None else rate * 1e12
    if memory is not None:
        what, precision = ("a card", on_a_card(recipe)) if kind is Kind.AUTO else ("a CPU", on_a_cpu(recipe))
        return Device(f"{what} of {memory:g} GB", precision, memory * 1e9 * USABLE, given)
    here = choose_precision(recipe) if kind is Kind.AUTO else on_a_cpu(recipe)
    found, speed = found_memory(here.device), given or measured_rate(here)
    return Device(f"this machine ({here.device.type}, {found / 1e9:.0f} GB)", here, found * USABLE, speed)


def on_a_card(recipe: "Recipe") -> "Precision":
    """In which numbers a card computes a recipe: bfloat16, unless the recipe says otherwise."""
    import torch

    from preflow.models.precision import Precision

    compute = torch.float32 if recipe.bf16 is False else torch.bfloat16
    weights = torch.float32 if recipe.tuning == "full" else compute
    return Precision(torch.device("cuda"), weights, compute)


def on_a_cpu(recipe: "Recipe") -> "Precision":
    """In which numbers a CPU computes a recipe: float32, unless the recipe asks for bfloat16."""
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
    """Operations per second of one large matrix product in the numbers that a recipe computes in, the best of four."""
    import torch

    width = _WIDTHS[precision.device.type]
    a = torch.ones(width, width, device=precision.device, dtype=precision.compute)
    best = 0.0
    for _ in range(4):  # the first one warms up
        begin = time.perf_counter()
        float((a @ a)[0, 0])  # waits for a GPU
        best = max(best, 2 * width**3 / (time.perf_counter() - begin))
    return best
