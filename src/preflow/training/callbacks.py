"""Callbacks of both training stages: reports to the observer, marked checkpoints, a heap within its estimate."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from preflow import distributed
from preflow.errors import NonFiniteLossError
from preflow.models.heap import hand_back
from preflow.models.peak_memory import PeakMemory
from preflow.observer import Observer
from preflow.training.checkpoints import mark_whole

#: Share of the estimated memory that the process may hold between steps, freed blocks included.
_UNUSED_MEMORY = 1.25


class HeapWithinEstimate(TrainerCallback):
    """Returns freed memory to the system after a step at which the process holds a quarter more than was estimated.

    Steps of many lengths can break a kept heap into pieces. What stays after it was returned is in use (oneDNN keeps
    code for every number of rows): the next time is when as much as was estimated has come on top.
    """

    def __init__(self, memory: PeakMemory, estimate: float) -> None:
        """Compare ``memory`` with the bytes that training was estimated to take above the loaded model."""
        self.memory, self.estimate, self.most = memory, estimate, _UNUSED_MEMORY * estimate

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Return what is free where the process holds more than it should."""
        if self.memory.now() > self.most:
            hand_back()
            self.most = max(self.most, self.memory.now() + self.estimate)


class StageCallback(TrainerCallback):
    """Reports progress and metrics, marks whole checkpoints, stops on a broken loss."""

    def __init__(self, stage: str, observer: Observer) -> None:
        """Report as ``stage`` to ``observer``."""
        self.stage = stage
        self.observer = observer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell how far training is; log before each checkpoint, from which a resumed training begins to count anew."""
        self.observer.progress(state.global_step, state.max_steps, f"{self.stage}: optimizer steps")
        if state.global_step % args.save_steps == 0:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Pass every logged number on, and stop when the loss or the gradient is broken."""
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(numbers.get(name, 0.0)):
                raise NonFiniteLossError(
                    f"{self.stage}: {name} is {numbers[name]} at step {state.global_step}; the last whole checkpoint "
                    f"is kept in {args.output_dir}. Lower the learning rate, or look for broken rows"
                )
        self.observer.metrics({f"{self.stage}/{k}": v for k, v in numbers.items()}, state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as whole: a kill during saving leaves one without this mark."""
        if distributed.is_distributed():
            torch.distributed.barrier()  # every process writes files of its own into the checkpoint
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            mark_whole(checkpoint)
