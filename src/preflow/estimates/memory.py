"""Peak memory of a training, by part, estimated from sizes and lengths alone.

A step has three moments that can be its peak: the head, with all activations kept and its logits; the backward of the
last layer, with all activations and that layer's workspace; and the optimizer's update, with all gradients. The highest
of the three estimates what PyTorch allocates. On the CPU the process needs more, since its heap and its libraries hold
memory too; that share differs from run to run.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from preflow.config import Launch, Recipe
from preflow.config.training import TrainingSettings
from preflow.estimates.activations import ExecutionPath, head_memory, kept_activations, layer_workspace
from preflow.estimates.flops import ModelShape, TokenWork
from preflow.models.precision import Precision

#: Bytes per number of AdamW's two moments, by a part of the optimizer's name. (8 bits have a scale per 256 numbers.)
_MOMENTS = {"8bit": 2 * (1 + 4 / 256), "4bit": 1.0, "adafactor": 0.1, "sgd": 0.0}
_ADAM = 8.0
#: NF4 with double quantization: 4 bits, and 8-bit scales per 64 weights with their own per 256 (QLoRA, section 3).
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
#: Bytes that libraries and interpreter need on the CPU during a training beside its tensors; 20 to 60 MiB measured.
_LIBRARIES = 40 * 2**20
#: Fragmentation of a kept heap (``preflow.models.heap``) as a share of activations and logits; measured.
_FRAGMENTED = 0.1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak, by part: the base model's weights, the adapter's, and what training adds.

    Gradients are those that exist at the peak: without accumulation they are made while activations are freed. The heap
    is what a process on the CPU needs beside tensors. With sharded weights (FSDP, ZeRO 3) the parts are one rank's, and
    ``full_weights`` is what each rank loads before it shards them.
    """

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    heap: float = 0.0
    full_weights: float = 0.0

    @property
    def total(self) -> float:
        """All together."""
        return max(self.full_weights, self.weights + self.adapter + self.training)

    @property
    def training(self) -> float:
        """What training adds to a loaded model."""
        return self.tensors + self.heap

    @property
    def tensors(self) -> float:
        """The part of ``training`` that PyTorch allocates."""
        return self.gradients + self.optimizer + self.activations + self.logits + self.workspace


def peak_memory(
    shape: ModelShape,
    recipe: Recipe,
    settings: TrainingSettings,
    batch: TokenWork,
    precision: Precision,
    *,
    accumulates: bool | None = None,
) -> Memory:
    """Bytes at the peak of training on a batch.

    Args:
        shape: The model's sizes.
        recipe: Precision, quantization and what is trained.
        settings: The stage's section.
        batch: Token counts of its largest micro-batch.
        precision: Device and dtypes.
        accumulates: Whether a step may have several micro-batches; where not given, whether
            ``gradient_accumulation_steps`` is above 1.
    """
    path = ExecutionPath.of(shape, recipe, settings, precision)
    adapter = float(path.rank * shape.adapter_width)
    trained = adapter or float(shape.parameters)
    shards = weight_shards(recipe.launch)
    full_weights = _loaded(shape, recipe, precision)
    gradients = trained * 4.0 / shards
    if accumulates is None:
        accumulates = settings.gradient_accumulation_steps > 1
    # Sharded, every rank keeps its part of all gradients; else a step without accumulation starts with none.
    kept_gradients = gradients if shards > 1 or accumulates else 0.0
    # DDP's buckets: gradients once more, on their way to the other ranks.
    buckets = trained * 4.0 if shards == 1 and recipe.launch.num_processes > 1 else 0.0
    base = Memory(
        weights=full_weights / shards,
        adapter=adapter * 4.0 / shards,
        gradients=kept_gradients,
        optimizer=_optimizer_state(shape, settings, trained, path) / shards,
        activations=kept_activations(shape, settings, batch, path),
        logits=0.0,
        workspace=_gathered(shape, precision) if shards > 1 else buckets,
        full_weights=full_weights + adapter * 4.0 if shards > 1 else 0.0,
    )
    update = _update(shape, settings, path, trained / shards)
    moments_of_a_step = (
        replace(base, logits=head_memory(shape, batch.head_positions, path)),
        replace(
            base,
            logits=4.0 * batch.head_positions * shape.hidden,  # the head's gradient
            workspace=base.workspace + layer_workspace(shape, settings, batch, path),
        ),
        replace(base, gradients=gradients, activations=0.0, workspace=buckets + update),
    )
    peak = max(moments_of_a_step, key=lambda memory: memory.training)
    return replace(peak, heap=_heap(peak, settings, path)) if path.cpu else peak


def _heap(peak: Memory, settings: TrainingSettings, path: ExecutionPath) -> float:
    """Bytes that a process on the CPU needs beside its tensors."""
    returned = path.autocast or path.four_bit or path.dropout or settings.gradient_checkpointing
    return _LIBRARIES + (0.0 if returned else _FRAGMENTED * (peak.activations + peak.logits))


def _optimizer_state(shape: ModelShape, settings: TrainingSettings, trained: float, path: ExecutionPath) -> float:
    """Bytes of the optimizer's state for so many trained weights."""
    moments = next((size for part, size in _MOMENTS.items() if part in settings.optim), _ADAM)
    # An 8-bit optimizer keeps the moments of embeddings that train in 32 bits: transformers asks bitsandbytes to.
    exempt = shape.vocabulary * shape.hidden if "8bit" in settings.optim and not path.rank else 0
    return trained * moments + exempt * (_ADAM - moments)


@cache
def weight_shards(launch: Launch) -> int:
    """Ranks among which weights, gradients and optimizer state are sharded: all with FSDP or ZeRO 3, else 1."""
    if launch.config is None or not Path(launch.config).is_file():
        return 1
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    config = load_config_from_file(launch.config)
    stage = (config.deepspeed_config or {}).get("zero_stage")
    sharded = config.distributed_type == DistributedType.FSDP or stage == 3
    return launch.num_processes if sharded else 1


def _loaded(shape: ModelShape, recipe: Recipe, precision: Precision) -> float:
    """Bytes of the loaded weights; 4-bit loading packs plain matrices, but neither embeddings nor experts."""
    if not recipe.use_4bit:
        return float(shape.parameters * precision.weights.itemsize)
    rest = shape.parameters - shape.quantizable_weights
    return shape.quantizable_weights * _NF4 + rest * precision.weights.itemsize


def _gathered(shape: ModelShape, precision: Precision) -> float:
    """Bytes gathered at once: the current layer, the next one, and the embedding or head. Not measured."""
    rest = shape.parameters - shape.matrix_weights
    return (2 * shape.matrix_weights / shape.layers + rest) * precision.compute.itemsize


def _update(shape: ModelShape, settings: TrainingSettings, path: ExecutionPath, trained: float) -> float:
    """Bytes that the update makes: on a GPU a root of every second moment at once, on the CPU two per parameter."""
    if not path.cpu:
        return 4.0 * trained if settings.optim == "adamw_torch" else 0.0
    return 0.0 if path.rank else 2 * 4.0 * max(shape.largest_matrix, shape.vocabulary * shape.hidden)
