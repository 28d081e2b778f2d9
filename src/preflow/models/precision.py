"""In which numbers a model computes; part of the identity of whatever is computed with it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from preflow.config import Recipe


@dataclass(frozen=True, slots=True)
class Precision:
    """In which numbers a model computes.

    Attributes:
        device: Where it runs.
        weights: dtype in which frozen weights are held.
        compute: dtype of the forward; bfloat16 runs under autocast.
    """

    device: torch.device
    weights: torch.dtype
    compute: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forwards run."""
        if self.compute is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    def label(self) -> str:
        """For keys and reports: ``cpu/float32/float32``."""
        names = (str(dtype).removeprefix("torch.") for dtype in (self.weights, self.compute))
        return "/".join((self.device.type, *names))


def choose_precision(recipe: Recipe) -> Precision:
    """Device and dtypes for a recipe: bfloat16 where asked for, or, with ``auto``, on a GPU that has it.

    Full fine-tuning keeps float32 master weights: an update of 5e-7 vanishes in bfloat16.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wants = device.type == "cuda" and torch.cuda.is_bf16_supported() if recipe.bf16 == "auto" else recipe.bf16
    compute = torch.bfloat16 if wants else torch.float32
    return Precision(device, torch.float32 if recipe.tuning == "full" else compute, compute)
