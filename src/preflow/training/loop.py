"""What both training stages share: transformers' arguments, checkpoints that are whole, and reports to the observer."""

import math
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from preflow import distributed
from preflow.artifacts import SCRATCH
from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.errors import NonFiniteLossError
from preflow.fingerprints.files import file_digest, json_digest
from preflow.models.adapters import inner_model, trainable_parameters
from preflow.models.loading import LanguageModel
from preflow.models.memory import PeakMemory, freed_memory_kept, freed_memory_returned, hand_back
from preflow.models.precision import Precision
from preflow.models.sharding import is_sharded
from preflow.observer import Observer

# TRL 1.16 itself sets the setting's old name, which transformers 5.23 warns about.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)

_WHOLE = "preflow-complete.json"
_GIB = 2**30
#: How much of the memory foreseen may lie about between steps, freed blocks included.
_LYING_ABOUT = 1.25
#: Left out of the log: wall times, and TRL's running count of tokens, which starts again at zero after a resume.
_TIMES = re.compile(r"runtime|per_second|total_flos|num_tokens")


def training_arguments(recipe: Recipe, settings: TrainingSettings, precision: Precision, out: Path) -> dict[str, Any]:
    """The arguments of transformers' Trainer that a recipe fixes, under the Trainer's names."""
    rows, forwards = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    if settings.max_tokens_per_batch is not None:  # a step's rows come together and are shared out by their tokens
        rows, forwards = rows * forwards, 1
    return {
        "output_dir": str(out / SCRATCH),
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": forwards,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_ratio,  # a float below 1 is a share in transformers 5
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": precision.compute is torch.bfloat16,
        "use_cpu": precision.device.type == "cpu",
        "dataloader_pin_memory": precision.device.type != "cpu",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # the filter would hide a broken loss
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,  # rows carry their numbers, so that a broken one can be named
        "max_length": None,  # rows were cut, dropped and counted before they came here
    }


def apply_precision(arguments: TrainingArguments, precision: Precision) -> None:
    """Take back what transformers' arguments take from the machine and not from the recipe.

    With several GPUs the Trainer would wrap the model in DataParallel, which multiplies the effective batch unasked and
    knows nothing of a replaced forward; several devices are for ``accelerate launch``. And where ``bf16`` is false, it
    would take the mixed precision that the environment names (``ACCELERATE_MIXED_PRECISION``), while reference and
    proof compute in the recipe's.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    arguments.mixed_precision = precision.mixed()


class PredictedMemory(Protocol):
    """What a training was estimated to take at its peak, in bytes."""

    @property
    def training(self) -> float:
        """All of it, above the loaded model."""

    @property
    def tensors(self) -> float:
        """What of it lies in tensors."""


def run_training(
    trainer: Trainer,
    out: Path,
    observer: Observer | None = None,
    predicted: PredictedMemory | None = None,
    *,
    keep_heap: bool = True,
) -> list[dict[str, float]]:
    """Train, from the last whole checkpoint if there is one, and return the log of every step.

    Args:
        trainer: TRL's, ready.
        out: The stage's partial folder.
        observer: Hears how much memory training took above the loaded model, where one process holds all of that.
        predicted: What it was estimated to take; without it memory is not reported.
        keep_heap: Whether the allocator's settings may be changed while it runs, where that saves time or memory.

    Raises:
        NonFiniteLossError: The loss or the gradient's norm became NaN or infinite.
    """
    scratch = out / SCRATCH
    trainer.remove_callback(PrinterCallback)  # the observer shows the log
    memory = PeakMemory(trainer.args.device, trainer.model)
    with _heap(trainer, memory, predicted) if keep_heap else nullcontext():
        trainer.train(resume_from_checkpoint=resume_point(scratch))
    if observer is not None and predicted is not None:
        _tell_memory(trainer, observer, memory, predicted)
    return clean_log(trainer.state.log_history)


def _heap(trainer: Trainer, memory: PeakMemory, predicted: PredictedMemory | None) -> AbstractContextManager[None]:
    """What becomes of freed memory while a trainer runs."""
    if _saves_memory(trainer):
        return freed_memory_returned(trainer.args.device)
    if predicted is not None and memory.device.type == "cpu" and sys.platform == "linux":
        trainer.add_callback(_HeapWithinForecast(memory, predicted.training))
    return freed_memory_kept(trainer.args.device)


def _tell_memory(trainer: Trainer, observer: Observer, memory: PeakMemory, predicted: PredictedMemory) -> None:
    """Say what training was foreseen to take and what it took: not in the artifact, for that differs by the run."""
    stage, model = getattr(trainer, "stage", "training"), trainer.model
    values = {"predicted": predicted.training / _GIB, "predicted_tensors": predicted.tensors / _GIB}
    taken = memory.above_idle()
    if model is not None and is_sharded(model):  # no process holds the loaded model
        observer.note(f"{stage}: how much memory training took was not measured: processes share its weights out")
    elif taken is None:
        observer.note(
            f"{stage}: how much memory training took was not measured: /proc/self/clear_refs cannot be written here"
        )
    else:
        values["measured"] = taken / _GIB
    observer.metrics({f"{stage}/memory_{k}_gib": v for k, v in values.items()}, trainer.state.global_step)


class _HeapWithinForecast(TrainerCallback):
    """Hands freed memory back after a step where more of it lies about than training was foreseen to take.

    Steps of many lengths can break a kept heap into pieces. What stays after it was handed back is in use (oneDNN keeps
    code for every number of rows): the next time is when as much as was foreseen has come on top.
    """

    def __init__(self, memory: PeakMemory, forecast: float) -> None:
        self.memory, self.forecast, self.most = memory, forecast, _LYING_ABOUT * forecast

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.memory.now() > self.most:
            hand_back()
            self.most = max(self.most, self.memory.now() + self.forecast)


def _saves_memory(trainer: Trainer) -> bool:
    """Whether a training makes many temporaries to hold little, so that freed memory must not lie about."""
    packed = getattr(inner_model(trainer.model), "is_loaded_in_4bit", False)
    modules = trainer.model.named_modules() if trainer.model is not None else ()
    drops = any("lora_dropout" in name and getattr(module, "p", 0.0) > 0 for name, module in modules)
    return bool(packed or drops or trainer.args.bf16 or trainer.args.gradient_checkpointing)


def resume_point(scratch: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed. Process 0 decides for all."""
    found = _newest_whole(scratch) if distributed.is_rank0() else None
    checkpoint: str | None = distributed.broadcast_from_rank0(found)
    return checkpoint


def _newest_whole(scratch: Path) -> str | None:
    checkpoints = sorted(scratch.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        if _is_whole(checkpoint):
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / _WHOLE
    return mark.is_file() and mark.read_text(encoding="utf-8") == _contents_digest(checkpoint)


def _contents_digest(checkpoint: Path) -> str:
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != _WHOLE)
    return json_digest({p.relative_to(checkpoint).as_posix(): file_digest(p) for p in files})


def clean_log(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The logged steps without wall times and without the closing summary.

    A look at held-out pairs that gave no number, at which training stops, has no value in the log.
    """
    steps = [entry for entry in history if "train_runtime" not in entry]
    return [{k: v for k, v in entry.items() if not _TIMES.search(k) and math.isfinite(v)} for entry in steps]


def final_mean(log: list[dict[str, float]], name: str, share: float = 0.2) -> float:
    """Mean of a logged metric over the last ``share`` of the logged steps that have it."""
    values = [entry[name] for entry in log if name in entry]
    tail = values[-max(1, math.ceil(share * len(values))) :]
    return sum(tail) / len(tail)


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
            (checkpoint / _WHOLE).write_text(_contents_digest(checkpoint), encoding="utf-8")


@contextmanager
def preserve_trainable_weights(model: LanguageModel) -> Iterator[None]:
    """Undo what a trainer's constructor does to trainable weights.

    TRL casts the adapter of a quantized model to bfloat16, after which policy and reference differ at step 0.
    """
    before = {name: parameter.data for name, parameter in trainable_parameters(model).items()}
    yield
    for name, parameter in trainable_parameters(model).items():
        if name in before:
            parameter.data = before[name]
