"""What each rank of a distributed run does for a stage, by the names that the table of stages gives."""

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from preflow import distributed
from preflow.errors import ConfigError
from preflow.observer import Observer, Silent
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec, stage_function

#: How long ranks wait for each other, as rank 0 writes and digests checkpoints of the full weights.
_PATIENCE = timedelta(hours=2)


def train(spec: SftSpec | DpoSpec, out: Path, first: Observer) -> None:
    """Train together with the other ranks.

    Args:
        spec: What to train.
        out: The stage's partial folder, the same for all ranks.
        first: Receives what rank 0 has to say.
    """
    observer = first if join_training().is_main_process else Silent()
    run = stage_function(spec)
    run(spec, out, observer)
    distributed.shut_down()


def fill(spec: ReferenceSpec, out: Path, first: Observer) -> None:
    """Compute this rank's part of the reference's log-probs; ``out`` gets no file."""
    from preflow.stages.reference import prepare

    prepare(spec, first if distributed.current_ranks().index == 0 else Silent())


def join_training() -> PartialState:
    """Make this process one of the ranks that train together; the trainer alone would do so only later."""
    load_full_weights_on_every_rank()
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def load_full_weights_on_every_rank() -> None:
    """Let every rank load the full weights, which it checks before the trainer shards them.

    Raises:
        ConfigError: The launch configures FSDP 1, whose flat parameters cannot be saved by name.
    """
    os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)  # it would load them on rank 0 alone
    version = os.environ.get("FSDP_VERSION", "1")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and version != "2":
        raise ConfigError(
            f"launch.config says fsdp_version {version}, expected 2: set it under fsdp_config, as "
            "infra/accelerate/fsdp.yaml does"
        )
