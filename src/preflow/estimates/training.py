"""What a training needs: steps, floating-point operations and peak memory, from sizes and lengths alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.errors import UnknownShapeError
from preflow.estimates.flops import ModelShape, TokenWork, forward_flops, shape_of, training_flops
from preflow.estimates.memory import Memory, peak_memory
from preflow.estimates.workload import Lengths, epoch_works
from preflow.models.cpu.switch import kernels_wanted
from preflow.models.loading import LanguageModel
from preflow.models.precision import Precision


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """One training stage, all epochs together.

    Attributes:
        rows: Pairs or SFT examples.
        tokens: Tokens through the layers; padding included, for models that are not packed.
        loss_tokens: Tokens with loss.
        steps: Optimizer steps.
        forward: Floating-point operations of all forwards.
        training: Of forwards and backwards.
        memory: At the peak.
    """

    rows: int
    tokens: int
    loss_tokens: int
    steps: int
    forward: float
    training: float
    memory: Memory


def estimate_training(
    shape: ModelShape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    common: int = 0,
) -> TrainingEstimate:
    """Estimate one training stage.

    Args:
        shape: The model's sizes.
        recipe: Precision, quantization and what is trained.
        settings: The stage's section.
        rows: Tokens of each of its rows, at least one.
        precision: Device and dtypes.
        common: As ``common_prefix_length`` gives it.
    """
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_step *= recipe.launch.num_processes
    epoch_steps = math.ceil(len(rows) / per_step)
    steps = settings.max_steps if settings.max_steps > 0 else math.ceil(epoch_steps * settings.num_train_epochs)
    epochs = steps / epoch_steps
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    works = epoch_works(rows, recipe, settings, packed=shape.supports_packing, common=common)
    epoch = sum(works, TokenWork(0, 0, 0))
    products = head_products(shape, rank, precision, kernels=kernels_wanted(settings))
    flops = training_flops(shape, epoch, rank, head_products=products, recompute=settings.gradient_checkpointing)
    return TrainingEstimate(
        rows=len(rows),
        tokens=round(epoch.tokens * epochs),
        loss_tokens=round(epoch.head_positions * epochs),
        steps=steps,
        forward=epochs * forward_flops(shape, epoch, rank),
        training=epochs * flops,
        memory=training_memory(shape, recipe, settings, rows, precision, common),
    )


def head_products(shape: ModelShape, rank: int, precision: Precision, *, kernels: bool = True) -> int:
    """Matrix products of the head's backward: one where its forward ends the gradient, else logits are made again."""
    own = kernels and precision.device.type == "cpu" and precision.compute is torch.float32
    return 1 if rank and own and shape.supports_packing else 2 if rank else 3


def training_memory(
    shape: ModelShape,
    recipe: Recipe,
    settings: TrainingSettings,
    rows: Sequence[Lengths],
    precision: Precision,
    common: int = 0,
) -> Memory:
    """Peak memory of a training: that of the largest micro-batch of an epoch shuffled by the seed."""
    works = epoch_works(rows, recipe, settings, packed=shape.supports_packing, common=common)
    largest = max(works, key=lambda work: work.tokens)
    accumulates = len(works) > _process_steps(rows, settings)
    return peak_memory(shape, recipe, settings, largest, precision, accumulates=accumulates)


def _process_steps(rows: Sequence[Lengths], settings: TrainingSettings) -> int:
    """Optimizer steps of an epoch if one rank had all rows: with more micro-batches than these, gradients are kept."""
    return math.ceil(len(rows) / (settings.per_device_train_batch_size * settings.gradient_accumulation_steps))


def loaded_model_memory(
    model: LanguageModel,
    recipe: Recipe,
    settings: TrainingSettings,
    lengths: Sequence[Lengths],
    precision: Precision,
    common: int = 0,
    targets: str | Sequence[str] | None = None,
) -> Memory | None:
    """Peak memory of training a loaded model on rows of these lengths; None where it cannot be estimated.

    ``targets`` are the modules of an adapter that the model has already; others are named by the recipe.
    """
    try:
        shape = shape_of(model.config, settings.lora_target_modules if targets is None else targets)
    except UnknownShapeError:  # a model of an unknown architecture trains all the same
        return None
    return training_memory(shape, recipe, settings, lengths, precision, common)
