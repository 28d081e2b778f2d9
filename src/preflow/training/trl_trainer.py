"""What the mixins of ``training`` use of TRL's and transformers' trainers: the whole of it, in one place.

Names with an underscore are private to transformers 5.23 (``Trainer``) and TRL 1.16 (``DPOTrainer``, ``SFTTrainer``):
a new version of either is checked against this list first.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from transformers import TrainerCallback, TrainerState


class Accelerator(Protocol):
    """accelerate's, as far as it is used."""

    num_processes: int
    process_index: int
    device: torch.device
    distributed_type: Any

    def gather(self, tensor: Any) -> Any:
        """Tensors of all ranks; TRL calls it for the rewards and log-probs of DPO."""

    def gather_for_metrics(self, input_data: Any) -> Any:
        """As ``gather``, without the rows that fill up an epoch's last batch; TRL calls it for all other metrics."""

    def no_sync(self, model: Any) -> AbstractContextManager[Any]:
        """Within it a backward does not average gradients over ranks."""


class TrlTrainer(Protocol):
    """A trainer of TRL, as the mixins see it."""

    accelerator: Accelerator
    args: Any
    state: TrainerState
    model: Any
    train_dataset: Sequence[Mapping[str, Any]]
    data_collator: Any
    current_gradient_accumulation_steps: float
    """Transformers divides the loss of a forward by it."""
    _train_batch_size: int
    _metrics: dict[str, dict[str, list[float]]]
    """By mode and name the values of every forward since the last log, which ``log`` averages."""
    _total_train_tokens: int

    def add_callback(self, callback: TrainerCallback) -> None:
        """Transformers' own."""

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Autocast as in training."""

    def _prepare_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A batch on the trainer's device."""

    def _get_num_items_in_batch(self, batches: list[Any], device: torch.device) -> Any:
        """Tokens with loss in a step's batches."""


def as_trainer(mixin: object) -> TrlTrainer:
    """A mixin seen as the trainer that it stands before in a class's bases."""
    return cast(TrlTrainer, mixin)
