"""Whether training on a CPU uses the kernels of this package: the setting ``cpu_kernels``, and torch's version."""

import torch

from preflow.config.training import TrainingSettings
from preflow.models.cpu.operators import TORCH_VERSIONS, holds_for
from preflow.observer import UserText


def kernels_wanted(settings: TrainingSettings) -> bool:
    """Whether a stage installs the CPU kernels: its recipe allows them, and torch has a version they are tested with.

    Installed layers use them on a CPU in float32 alone; on other devices and in other dtypes they call torch's own.
    """
    return settings.cpu_kernels == "auto" and holds_for(torch.__version__)


def untested_torch(settings: TrainingSettings, device: torch.device) -> UserText | None:
    """A note for a training that falls back to torch's plain modules because of torch's version; None otherwise."""
    if settings.cpu_kernels == "off" or device.type != "cpu" or holds_for(torch.__version__):
        return None
    return UserText(
        f"training runs on torch's plain modules, which takes longer: the CPU kernels are tested with torch "
        f"{', '.join(TORCH_VERSIONS)}, and torch {torch.__version__} is installed"
    )
