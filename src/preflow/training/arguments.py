"""What a trainer is made with: transformers' arguments as a recipe fixes them, and weights that it must not change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from preflow.artifacts import SCRATCH
from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.models.adapters import trainable_parameters
from preflow.models.loading import LanguageModel
from preflow.models.precision import Precision


def training_arguments(recipe: Recipe, settings: TrainingSettings, precision: Precision, out: Path) -> dict[str, Any]:
    """The arguments of transformers' Trainer that a recipe fixes, under the Trainer's names."""
    rows, forwards = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    if settings.max_tokens_per_batch is not None:  # an effective batch comes together and is split by tokens
        rows, forwards = rows * forwards, 1
    return {
        "output_dir": str(out / SCRATCH),
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": forwards,
        "learning_rate": settings.rate,
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
