"""Settings of distributed runs: the section ``launch:`` of a recipe."""

from pathlib import Path
from typing import Any

from pydantic import Field

from preflow.config.base import Frozen
from preflow.fingerprints.files import file_digest


class Launch(Frozen):
    """Several processes for the training stages and the reference log-probs, by ``accelerate launch``."""

    num_processes: int = Field(default=1, ge=1)
    """Processes in all, one per GPU. The rows of an optimizer step are ``per_device_train_batch_size`` times
    ``gradient_accumulation_steps`` times this."""
    config: str | None = None
    """A configuration file of accelerate, by its path from the recipe's own folder (``infra/accelerate/`` has some for
    DDP, FSDP and DeepSpeed); where not given, one process per GPU of this machine, each with the whole model. The
    user's own default of accelerate is never read, and the precision is ``bf16``'s, whatever else is said."""

    def identity(self) -> dict[str, Any]:
        """How many processes, and what the configuration says, wherever it lies."""
        config = Path(self.config) if self.config is not None else None
        return {
            "num_processes": self.num_processes,
            "config": file_digest(config) if config is not None and config.is_file() else self.config,
        }
