"""How much memory a training will take at its peak, by part, from sizes and lengths alone.

A step has three moments that can be its highest: the head, with all activations kept and its logits at hand; the
backward of the last layer, with all activations and what that layer works on; and the optimizer's update, with all
gradients. Each is counted tensor by tensor as the code that runs makes them (seen with PyTorch's memory profiler); the
highest is the forecast of what PyTorch allocates, which a test compares with that profiler. On the CPU the process
takes more, since its heap and its libraries hold memory too: that share differs from run to run, and is an estimate.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from preflow.config import Launch, Recipe
from preflow.config.training import DpoSettings, TrainingSettings
from preflow.estimates.flops import Shape, Work
from preflow.models.cpu.switch import kernels_wanted
from preflow.models.precision import Precision

#: Bytes per number of AdamW's two moments, by a part of the optimizer's name. (8 bits have a scale per 256 numbers.)
_MOMENTS = {"8bit": 2 * (1 + 4 / 256), "4bit": 1.0, "adafactor": 0.1, "sgd": 0.0}
_ADAM = 8.0
#: NF4 with double quantization: 4 bits, and 8-bit scales per 64 weights with their own per 256 (QLoRA, section 3).
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
#: Scored tokens that go through the head together: the CPU's own head, and TRL's, with its width of the vocabulary.
_OWN_TILE, _TRL_TILE, _TRL_WIDTH = 512, 4096, 32768
#: What a training makes the libraries and the interpreter take on the CPU beside its tensors; 20 to 60 MiB measured.
_LIBRARIES = 40 * 2**20
#: Share of activations and logits that lies about between others in a kept heap (``models/memory.py``); measured.
_SCATTERED = 0.1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak, by part: the base model's weights, the adapter's, and what training adds.

    Gradients are those that there are at the peak: a step that accumulates none makes them as its activations go.
    The heap is what a process on the CPU takes beside tensors.
    Of a launch that shares weights out (FSDP, ZeRO 3) it is one process's part, and ``whole`` is what each process
    loads before they are shared out.
    """

    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    workspace: float
    heap: float = 0.0
    whole: float = 0.0

    @property
    def total(self) -> float:
        """All together."""
        return max(self.whole, self.weights + self.adapter + self.training)

    @property
    def training(self) -> float:
        """What training adds to a loaded model."""
        return self.tensors + self.heap

    @property
    def tensors(self) -> float:
        """What of it PyTorch allocates."""
        return self.gradients + self.optimizer + self.activations + self.logits + self.workspace


@dataclass(frozen=True, slots=True)
class _Way:
    """Which code trains: it decides what is kept.

    Attributes:
        rank: Of the adapter; 0 where all weights train.
        cpu: Whether it runs there.
        autocast: Whether numbers are cast to bfloat16 on the way.
        four_bit: Whether the layers' matrices are packed.
        drops: Whether the adapter's dropout is on: PEFT's own layers and the MLP's own forward compute then.
        attention: Whether ``fast_attention`` computes.
        mlp: Whether ``fast_layers`` computes the MLP.
        own_head: Whether ``head`` scores.
        pairs: Whether a row holds two responses to a prompt.
    """

    rank: int
    cpu: bool
    autocast: bool
    four_bit: bool
    drops: bool
    attention: bool
    mlp: bool
    own_head: bool
    pairs: bool

    @staticmethod
    def of(shape: Shape, recipe: Recipe, settings: TrainingSettings, precision: Precision) -> "_Way":
        """The way that a stage goes."""
        rank = settings.lora_r if recipe.tuning == "lora" else 0
        cpu, autocast = precision.device.type == "cpu", precision.compute is torch.bfloat16
        kernels = kernels_wanted(settings)
        lean = kernels and shape.lean and cpu and not autocast and precision.weights is torch.float32
        off = isinstance(settings, DpoSettings) and settings.disable_dropout
        drops = rank > 0 and settings.lora_dropout > 0 and not off
        whole_mlp = rank > 0 and not recipe.use_4bit and not drops and shape.adapted == 7 * shape.layers
        pairs = shape.packed and isinstance(settings, DpoSettings)
        own_head = kernels and cpu and rank > 0 and shape.packed and not autocast
        return _Way(rank, cpu, autocast, recipe.use_4bit, drops, lean, lean and whole_mlp, own_head, pairs)


def peak_memory(
    shape: Shape,
    recipe: Recipe,
    settings: TrainingSettings,
    batch: Work,
    precision: Precision,
    *,
    accumulates: bool | None = None,
) -> Memory:
    """Bytes at the peak of training on a batch.

    Args:
        shape: The model's sizes.
        recipe: Precision, quantization and what is trained.
        settings: The stage's section.
        batch: What its largest forward takes.
        precision: Where and in which numbers.
        accumulates: Whether a step may have several forwards; as ``gradient_accumulation_steps`` says where not given.
    """
    way = _Way.of(shape, recipe, settings, precision)
    adapter = float(way.rank * shape.wide)
    trained = adapter or float(shape.parameters)
    shares = shared_among(recipe.launch)
    whole = _loaded(shape, recipe, precision)
    gradients = trained * 4.0 / shares
    kept = _activations(shape, settings, batch, way)
    if accumulates is None:
        accumulates = settings.gradient_accumulation_steps > 1
    # Shared out, every process holds its part of all gradients; else a step that accumulates none starts without.
    held = gradients if shares > 1 or accumulates else 0.0
    # DDP's buckets: gradients once more, on their way to the other processes.
    buckets = trained * 4.0 if shares == 1 and recipe.launch.num_processes > 1 else 0.0
    base = Memory(
        weights=whole / shares,
        adapter=adapter * 4.0 / shares,
        gradients=held,
        optimizer=_moments(shape, settings, trained, way) / shares,
        activations=kept,
        logits=0.0,
        workspace=_gathered(shape, precision) if shares > 1 else buckets,
        whole=whole + adapter * 4.0 if shares > 1 else 0.0,
    )
    layer = _work_on_a_layer(shape, settings, batch, way)
    update = _update(shape, settings, way, trained / shares)
    slope = 4.0 * batch.scored * shape.hidden
    moments_of_a_step = (
        replace(base, logits=_head(shape, batch.scored, way)),
        replace(base, logits=slope, workspace=base.workspace + layer),
        replace(base, gradients=gradients, activations=0.0, workspace=buckets + update),
    )
    peak = max(moments_of_a_step, key=lambda memory: memory.training)
    if not way.cpu:
        return peak
    returned = way.autocast or way.four_bit or way.drops or settings.gradient_checkpointing
    scattered = 0.0 if returned else _SCATTERED * (peak.activations + peak.logits)
    return replace(peak, heap=_LIBRARIES + scattered)


def _moments(shape: Shape, settings: TrainingSettings, trained: float, way: _Way) -> float:
    """Bytes of the optimizer's state over so many trained numbers."""
    moments = next((size for part, size in _MOMENTS.items() if part in settings.optim), _ADAM)
    # An 8-bit optimizer keeps the moments of embeddings that train in 32 bits: transformers asks bitsandbytes to.
    exempt = shape.vocabulary * shape.hidden if "8bit" in settings.optim and not way.rank else 0
    return trained * moments + exempt * (_ADAM - moments)


@cache
def shared_among(launch: Launch) -> int:
    """How many processes hold a model's weights, gradients and optimizer together: one each, unless FSDP or ZeRO 3."""
    if launch.config is None or not Path(launch.config).is_file():
        return 1
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    config = load_config_from_file(launch.config)
    stage = (config.deepspeed_config or {}).get("zero_stage")
    sharded = config.distributed_type == DistributedType.FSDP or stage == 3
    return launch.num_processes if sharded else 1


def _loaded(shape: Shape, recipe: Recipe, precision: Precision) -> float:
    """Weights as they are held; 4-bit loading packs plain matrices, but neither embeddings nor experts."""
    if not recipe.use_4bit:
        return float(shape.parameters * precision.weights.itemsize)
    return shape.quantizable * _NF4 + (shape.parameters - shape.quantizable) * precision.weights.itemsize


def _gathered(shape: Shape, precision: Precision) -> float:
    """What is whole at once: the layer at work, the next one, and the embedding or head. An estimate, not measured."""
    rest = shape.parameters - shape.matrices
    return (2 * shape.matrices / shape.layers + rest) * precision.compute.itemsize


def _activations(shape: Shape, settings: TrainingSettings, batch: Work, way: _Way) -> float:
    """What the layers, the embedding and the last norm keep for the backward."""
    ends = 2 * shape.hidden * _stream(way) * batch.tokens
    if settings.gradient_checkpointing:
        return float(shape.layers * shape.hidden * _stream(way) * batch.tokens + ends)
    return shape.layers * _of_a_layer(shape, batch, way) + ends


def _stream(way: _Way) -> int:
    """Bytes per number of the residual stream: as wide as the embedding's weights."""
    return 2 if way.autocast and way.rank else 4


def _of_a_layer(shape: Shape, batch: Work, way: _Way) -> float:
    """What one layer keeps, for all tokens of a batch."""
    size = 2 if way.autocast else 4
    per_token = _norms(shape, way) + size * (_attention(shape, way) + _mlp(shape, way)) + _dropped(shape, way)
    narrow = way.rank * shape.adapted / shape.layers
    kept = batch.tokens * (per_token + size * narrow)
    if way.cpu and not way.attention:
        kept += size * _attention(shape, way) * batch.copied
        if way.pairs:  # every response's own copy of its prompt's keys and values
            tokens = batch.tokens + batch.copied
            kept += size * 2.0 * shape.attention * (2 * tokens - batch.scored)
    return kept


def _norms(shape: Shape, way: _Way) -> float:
    """Bytes per token of two norms: what enters (in float32), what leaves, and, where it trains, what it scales.

    Under autocast what leaves is cast anew for each matrix that reads it: three of attention and two of the MLP. PEFT
    does so too with an adapter over plain matrices; over packed ones all read the same. With dropout none is kept:
    what dropout leaves of it is (``_dropped``).
    """
    enters, scaled = 2 * 4, 0 if way.rank else 2 * 4
    if way.drops:
        return float(shape.hidden * (enters + scaled))
    if not way.autocast or way.four_bit:
        return float(shape.hidden * (enters + scaled + 2 * (2 if way.autocast else 4)))
    return float(shape.hidden * (enters + scaled + 5 * 2))


def _attention(shape: Shape, way: _Way) -> float:
    """Numbers per token: query, key and value as they enter attention, its result, and that as its matrix reads it."""
    if way.attention:
        return 2.0 * (shape.attention + shape.keys)
    if not way.cpu and shape.packed:  # one call for the whole row, of as many keys as there are
        return 2.0 * (shape.attention + shape.keys)
    # A head of keys and values for every query's; results of groups joined, unless dropout stands before their matrix.
    return (4.0 if way.drops else 5.0) * shape.attention


def _mlp(shape: Shape, way: _Way) -> float:
    """Numbers per token: the gate, its activation, the other half, their product; experts' own inputs and results."""
    wide = 2.0 if way.mlp else 3.0 if way.drops else 4.0  # the product is what its matrix reads, dropped out
    return wide * shape.inner + 2.0 * shape.experts * shape.hidden


def _dropped(shape: Shape, way: _Way) -> float:
    """Bytes per token of dropout, for every adapted matrix anew: what was kept of its input, and what is left of it.

    The CPU keeps a float32 factor for each number, a GPU a byte. The low-rank product reads what is left, cast under
    autocast.
    """
    if not way.drops:
        return 0.0
    return (4 if way.cpu else 1) * shape.read / shape.layers + (2 if way.autocast else 4) * shape.read / shape.layers


def _work_on_a_layer(shape: Shape, settings: TrainingSettings, batch: Work, way: _Way) -> float:
    """What the backward of the last layer makes: gradients of its MLP's parts, a matrix unpacked, what it forgot."""
    size = 2 if way.autocast else 4
    again = _of_a_layer(shape, batch, way) if settings.gradient_checkpointing else 0.0
    unpacked = float(size * shape.largest) if way.four_bit else 0.0
    parts = (2 if way.mlp else 3) * shape.inner + 3 * shape.hidden
    return again + unpacked + float(size * parts * batch.tokens)


def _head(shape: Shape, scored: int, way: _Way) -> float:
    """Logits at hand, what the head keeps per scored token, and its gradient where it trains.

    The CPU's own head (``models/head.py``) holds one tile of logits, soft-capped ones thrice. TRL's, which computes
    everywhere else, makes on the CPU of each tile its logits, their scaled and shifted copies, probabilities, gradient,
    target, and what it adds to the gradient: eight in float32, the first of them half as wide under autocast, and a
    quarter of one for the comparison with the target. On a GPU it works in place.
    """
    if way.own_head:
        tile = math.ceil(scored / math.ceil(scored / _OWN_TILE))
        return 4.0 * (1 if shape.lean else 3) * tile * shape.vocabulary + 3.0 * 4 * scored * shape.hidden
    tile = min(scored, _TRL_TILE) * min(shape.vocabulary, _TRL_WIDTH)
    gradient = 0.0 if way.rank else 4.0 * shape.vocabulary * shape.hidden
    if way.cpu:
        return 4.0 * tile * (7.75 if way.autocast else 8.25) + gradient + 4.0 * scored * shape.hidden
    return 2.0 * tile + 8.0 * scored * shape.hidden + gradient


def head_memory(shape: Shape, recipe: Recipe, settings: TrainingSettings, scored: int, precision: Precision) -> float:
    """Bytes that a training's head takes for so many scored tokens, without a backward too."""
    return _head(shape, scored, _Way.of(shape, recipe, settings, precision))


def _update(shape: Shape, settings: TrainingSettings, way: _Way, trained: float) -> float:
    """What the optimizer makes: on a GPU a root of every second moment at once, on the CPU two of one parameter's."""
    if not way.cpu:
        return 4.0 * trained if settings.optim == "adamw_torch" else 0.0
    return 0.0 if way.rank else 2 * 4.0 * max(shape.largest, shape.vocabulary * shape.hidden)
