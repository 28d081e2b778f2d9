"""Device and dtypes a model computes in; part of the identity of whatever is computed with it."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from preflow.config import Recipe

#: Settings of oneDNN (under its new name and its old one) and of cuBLAS that torch's own do not show.
_ENVIRONMENT = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE")


@dataclass(frozen=True, slots=True)
class Precision:
    """Device and dtypes a model computes in.

    Attributes:
        device: Where it runs.
        weights: dtype in which frozen weights are held.
        compute: dtype of the forward; bfloat16 runs under autocast.
    """

    device: torch.device
    weights: torch.dtype
    compute: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forwards run; for float32 one that a caller's own autocast does not reach into."""
        if self.compute is torch.float32:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=self.compute)

    def mixed(self) -> str:
        """What accelerate and transformers call it: ``bf16`` or ``no``."""
        return "bf16" if self.compute is torch.bfloat16 else "no"

    def label(self) -> str:
        """For keys and reports: ``cpu/float32/float32``, and whatever lets float32 be less than that here."""
        names = (str(dtype).removeprefix("torch.") for dtype in (self.weights, self.compute))
        return "/".join((self.device.type, *names, *_switches()))


def _switches() -> list[str]:
    """What makes products of float32 numbers coarser on this machine now, by environment or by a call to torch."""
    said = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if os.environ.get(name)]
    backends: dict[str, Any] = {"cuda": torch.backends.cuda, "mkldnn": torch.backends.mkldnn}
    set_to = {name: backend.matmul.fp32_precision for name, backend in backends.items()}
    return said + [f"{name}={value}" for name, value in set_to.items() if value not in ("none", "ieee")]


def choose_precision(recipe: Recipe) -> Precision:
    """Device and dtypes for a recipe: bfloat16 where asked for, or, with ``auto``, on a GPU that has it.

    Full fine-tuning keeps float32 master weights: an update of 5e-7 vanishes in bfloat16.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wants = device.type == "cuda" and torch.cuda.is_bf16_supported() if recipe.bf16 == "auto" else recipe.bf16
    compute = torch.bfloat16 if wants else torch.float32
    return Precision(device, torch.float32 if recipe.tuning == "full" else compute, compute)
