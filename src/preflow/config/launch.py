"""Settings of distributed runs: the section ``launch:`` of a recipe."""

from pathlib import Path
from typing import Any

from pydantic import Field

from preflow.config.base import Frozen
from preflow.fingerprints.files import file_digest


class Launch(Frozen):
    """A distributed run of the training stages and of the reference log-probs, by ``accelerate launch``."""

    num_processes: int = Field(default=1, ge=1)
    """Number of ranks, one per GPU. The effective batch is ``per_device_train_batch_size`` times
    ``gradient_accumulation_steps`` times this."""
    config: str | None = None
    """A configuration file of accelerate, relative to the recipe's folder (``infra/accelerate/`` has files for DDP,
    FSDP and DeepSpeed). Without one, one rank per GPU of this machine, each with the full weights. The user's default
    configuration of accelerate is never read, and the precision is always that of ``bf16``."""

    @property
    def distributed(self) -> bool:
        """Whether training runs in ranks of a launch."""
        return self.num_processes > 1 or self.config is not None

    def identity_settings(self) -> dict[str, Any]:
        """The number of ranks, and the digest of the configuration whatever its path."""
        config = Path(self.config) if self.config is not None else None
        return {
            "num_processes": self.num_processes,
            "config": file_digest(config) if config is not None and config.is_file() else self.config,
        }
