"""One training run: from the last whole checkpoint to the end, its memory measured, its log cleaned."""

import math
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from transformers import PrinterCallback, Trainer

from preflow.artifacts import SCRATCH
from preflow.models.adapters import inner_model
from preflow.models.heap import freed_memory_kept, freed_memory_returned
from preflow.models.peak_memory import PeakMemory
from preflow.models.sharding import is_sharded
from preflow.observer import Observer
from preflow.training.callbacks import HeapWithinEstimate
from preflow.training.checkpoints import resume_point
from preflow.training.termination import checkpoint_at_termination

_GIB = 2**30
#: Left out of the log: wall times, and TRL's running count of tokens, which starts again at zero after a resume.
_TIMES = re.compile(r"runtime|per_second|total_flos|num_tokens")


class PredictedMemory(Protocol):
    """What a training was estimated to take at its peak, in bytes."""

    @property
    def training(self) -> float:
        """All of it, above the loaded model."""

    @property
    def tensors(self) -> float:
        """What of it tensors hold."""


def run_training(
    trainer: Trainer,
    out: Path,
    observer: Observer | None = None,
    predicted: PredictedMemory | None = None,
    *,
    keep_heap: bool = True,
) -> list[dict[str, float]]:
    """Train, from the last whole checkpoint if there is one, and return the log of every step.

    An order to end (SIGTERM) is obeyed after a checkpoint of the step that is being done.

    Args:
        trainer: TRL's, ready.
        out: The stage's partial folder.
        observer: Receives how much memory training took above the loaded model, where one process holds all of that.
        predicted: What it was estimated to take; without it memory is not reported.
        keep_heap: Whether the allocator's settings may be changed while it runs, where that saves time or memory.

    Raises:
        NonFiniteLossError: The loss or the gradient's norm became NaN or infinite.
    """
    scratch = out / SCRATCH
    trainer.remove_callback(PrinterCallback)  # the observer shows the log
    memory = PeakMemory(trainer.args.device, trainer.model)
    heap = _heap(trainer, memory, predicted) if keep_heap else nullcontext()
    with heap, checkpoint_at_termination(trainer, getattr(trainer, "stage", "training"), observer):
        trainer.train(resume_from_checkpoint=resume_point(scratch))
    if observer is not None and predicted is not None:
        _tell_memory(trainer, observer, memory, predicted)
    return clean_log(trainer.state.log_history)


def _heap(trainer: Trainer, memory: PeakMemory, predicted: PredictedMemory | None) -> AbstractContextManager[None]:
    """What becomes of freed memory while a trainer runs."""
    if _saves_memory(trainer):
        return freed_memory_returned(trainer.args.device)
    if predicted is not None and memory.device.type == "cpu" and sys.platform == "linux":
        trainer.add_callback(HeapWithinEstimate(memory, predicted.training))
    return freed_memory_kept(trainer.args.device)


def _tell_memory(trainer: Trainer, observer: Observer, memory: PeakMemory, predicted: PredictedMemory) -> None:
    """Report what training was estimated to take and what it took: not in the artifact, for that differs by the run."""
    stage, model = getattr(trainer, "stage", "training"), trainer.model
    values = {"predicted": predicted.training / _GIB, "predicted_tensors": predicted.tensors / _GIB}
    taken = memory.above_idle()
    if model is not None and is_sharded(model):  # no process holds the loaded model
        observer.note(f"{stage}: how much memory training took was not measured: its weights are sharded")
    elif taken is None:
        observer.note(
            f"{stage}: how much memory training took was not measured: /proc/self/clear_refs cannot be written here"
        )
    else:
        values["measured"] = taken / _GIB
    observer.metrics({f"{stage}/memory_{k}_gib": v for k, v in values.items()}, trainer.state.global_step)


def _saves_memory(trainer: Trainer) -> bool:
    """Whether a training makes many temporaries to hold little, so that freed memory must be released."""
    packed = getattr(inner_model(trainer.model), "is_loaded_in_4bit", False)
    modules = trainer.model.named_modules() if trainer.model is not None else ()
    drops = any("lora_dropout" in name and getattr(module, "p", 0.0) > 0 for name, module in modules)
    return bool(packed or drops or trainer.args.bf16 or trainer.args.gradient_checkpointing)


def clean_log(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The logged steps without wall times and without the closing summary.

    A held-out evaluation that gave no number, at which training stops, has no value in the log.
    """
    steps = [entry for entry in history if "train_runtime" not in entry]
    return [{k: v for k, v in entry.items() if not _TIMES.search(k) and math.isfinite(v)} for entry in steps]


def final_mean(log: list[dict[str, float]], name: str, share: float = 0.2) -> float:
    """Mean of a logged metric over the last ``share`` of the logged steps that have it."""
    values = [entry[name] for entry in log if name in entry]
    tail = values[-max(1, math.ceil(share * len(values))) :]
    return sum(tail) / len(tail)
