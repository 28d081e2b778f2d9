"""Bytes that a training's forward keeps and its backward makes, by the code that runs: layers, head, dropout.

Each is counted tensor by tensor as the code makes them (seen with PyTorch's memory profiler).
"""

import math
from dataclasses import dataclass

import torch

from preflow.config import Recipe
from preflow.config.training import DpoSettings, TrainingSettings
from preflow.estimates.flops import ModelShape, TokenWork
from preflow.models.cpu.switch import kernels_wanted
from preflow.models.precision import Precision

#: Head positions that go through the head together: the CPU's own head, and TRL's, with its width of the vocabulary.
_OWN_TILE, _TRL_TILE, _TRL_WIDTH = 512, 4096, 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPath:
    """Which code trains: it decides which tensors are kept.

    Attributes:
        rank: Of the adapter; 0 where all weights train.
        cpu: Whether it runs on the CPU.
        autocast: Whether it computes in bfloat16 by autocast.
        four_bit: Whether the layers' matrices are packed to 4 bits.
        dropout: Whether the adapter's dropout is on: PEFT's own layers and the MLP's own forward compute then.
        attention_kernel: Whether ``models/cpu/rotary_attention.py`` computes attention.
        mlp_kernel: Whether ``models/cpu/llama_layers.py`` computes the MLP.
        head_kernel: Whether ``models/cpu/logprob_head.py`` computes the head.
        pairs: Whether a packed row holds two responses to a prompt.
    """

    rank: int
    cpu: bool
    autocast: bool
    four_bit: bool
    dropout: bool
    attention_kernel: bool
    mlp_kernel: bool
    head_kernel: bool
    pairs: bool

    @staticmethod
    def of(shape: ModelShape, recipe: Recipe, settings: TrainingSettings, precision: Precision) -> "ExecutionPath":
        """The path that a stage takes."""
        rank = settings.lora_r if recipe.tuning == "lora" else 0
        cpu, autocast = precision.device.type == "cpu", precision.compute is torch.bfloat16
        wanted = kernels_wanted(settings) and cpu and not autocast
        kernels = wanted and shape.has_cpu_kernels and precision.weights is torch.float32
        switched_off = isinstance(settings, DpoSettings) and settings.disable_dropout
        dropout = rank > 0 and settings.lora_dropout > 0 and not switched_off
        plain_lora = rank > 0 and not recipe.use_4bit and not dropout
        return ExecutionPath(
            rank=rank,
            cpu=cpu,
            autocast=autocast,
            four_bit=recipe.use_4bit,
            dropout=dropout,
            attention_kernel=kernels,
            mlp_kernel=kernels and plain_lora and shape.adapts_whole_llama_layers,
            head_kernel=wanted and rank > 0 and shape.supports_packing,
            pairs=shape.supports_packing and isinstance(settings, DpoSettings),
        )


def kept_activations(shape: ModelShape, settings: TrainingSettings, batch: TokenWork, path: ExecutionPath) -> float:
    """Bytes that the layers, the embedding and the last norm keep for the backward."""
    ends = 2 * shape.hidden * _residual_bytes(path) * batch.tokens
    if settings.gradient_checkpointing:
        return float(shape.layers * shape.hidden * _residual_bytes(path) * batch.tokens + ends)
    return shape.layers * _layer_activations(shape, batch, path) + ends


def _residual_bytes(path: ExecutionPath) -> int:
    """Bytes per value of the residual stream: those of the embedding's weights."""
    return 2 if path.autocast and path.rank else 4


def _layer_activations(shape: ModelShape, batch: TokenWork, path: ExecutionPath) -> float:
    """Bytes that one layer keeps, for all tokens of a batch."""
    size = 2 if path.autocast else 4
    values = _attention_values(shape, path) + _mlp_values(shape, path)
    per_token = _norm_bytes(shape, path) + size * values + _dropout_bytes(shape, path)
    low_rank = path.rank * shape.adapted_modules / shape.layers
    kept = batch.tokens * (per_token + size * low_rank)
    if path.cpu and not path.attention_kernel:
        kept += size * _attention_values(shape, path) * batch.copied
        if path.pairs:  # every response's own copy of its prompt's keys and values
            tokens = batch.tokens + batch.copied
            kept += size * 2.0 * shape.query_width * (2 * tokens - batch.head_positions)
    return kept


def _norm_bytes(shape: ModelShape, path: ExecutionPath) -> float:
    """Bytes per token of two norms: inputs (in float32), outputs, and, where they train, the normalised inputs.

    Under autocast an output is cast anew for each matrix that reads it: three of attention and two of the MLP. PEFT
    does so too with an adapter over plain matrices; over 4-bit ones all read the same. With dropout no output is kept:
    what dropout leaves of it is (``_dropout_bytes``).
    """
    inputs, normalised = 2 * 4, 0 if path.rank else 2 * 4
    if path.dropout:
        return float(shape.hidden * (inputs + normalised))
    if not path.autocast or path.four_bit:
        return float(shape.hidden * (inputs + normalised + 2 * (2 if path.autocast else 4)))
    return float(shape.hidden * (inputs + normalised + 5 * 2))


def _attention_values(shape: ModelShape, path: ExecutionPath) -> float:
    """Values per token: attention's query, key, value and output, and the output as the next matrix reads it."""
    if path.attention_kernel:
        return 2.0 * (shape.query_width + shape.key_width)
    if not path.cpu and shape.supports_packing:  # one call for the whole row, of as many keys as there are
        return 2.0 * (shape.query_width + shape.key_width)
    # Keys and values are repeated for every query head; outputs are joined, unless dropout comes before their matrix.
    return (4.0 if path.dropout else 5.0) * shape.query_width


def _mlp_values(shape: ModelShape, path: ExecutionPath) -> float:
    """Values per token: gate, its activation, up projection, their product; experts' own inputs and outputs."""
    widths = 2.0 if path.mlp_kernel else 3.0 if path.dropout else 4.0  # with dropout the product itself is not kept
    return widths * shape.mlp_width + 2.0 * shape.experts_per_token * shape.hidden


def _dropout_bytes(shape: ModelShape, path: ExecutionPath) -> float:
    """Bytes per token of dropout, for every adapted matrix: its mask, and the input after dropout.

    The CPU keeps a float32 factor for each value, a GPU a byte. The low-rank product reads the input after dropout,
    cast under autocast.
    """
    if not path.dropout:
        return 0.0
    inputs = shape.adapter_inputs
    return (4 if path.cpu else 1) * inputs / shape.layers + (2 if path.autocast else 4) * inputs / shape.layers


def layer_workspace(shape: ModelShape, settings: TrainingSettings, batch: TokenWork, path: ExecutionPath) -> float:
    """Bytes that the last layer's backward makes: its MLP's gradients, an unpacked matrix, recomputed activations."""
    size = 2 if path.autocast else 4
    again = _layer_activations(shape, batch, path) if settings.gradient_checkpointing else 0.0
    unpacked = float(size * shape.largest_matrix) if path.four_bit else 0.0
    parts = (2 if path.mlp_kernel else 3) * shape.mlp_width + 3 * shape.hidden
    return again + unpacked + float(size * parts * batch.tokens)


def head_memory(shape: ModelShape, positions: int, path: ExecutionPath) -> float:
    """Bytes of a tile of logits, what the head keeps per position, and its gradient where it trains.

    The CPU's own head (``models/cpu/logprob_head.py``) holds one tile of logits, three times with soft-capping. TRL's,
    which computes everywhere else, makes on the CPU of each tile its logits, their scaled and shifted copies,
    probabilities, gradient, target, and what it adds to the gradient: eight in float32, the first of them half as wide
    under autocast, and a quarter of one for the comparison with the target. On a GPU it works in place.
    """
    if path.head_kernel:
        tile = math.ceil(positions / math.ceil(positions / _OWN_TILE))
        return 4.0 * (1 if shape.has_cpu_kernels else 3) * tile * shape.vocabulary + 3.0 * 4 * positions * shape.hidden
    tile = min(positions, _TRL_TILE) * min(shape.vocabulary, _TRL_WIDTH)
    gradient = 0.0 if path.rank else 4.0 * shape.vocabulary * shape.hidden
    if path.cpu:
        return 4.0 * tile * (7.75 if path.autocast else 8.25) + gradient + 4.0 * positions * shape.hidden
    return 2.0 * tile + 8.0 * positions * shape.hidden + gradient
