"""What a training will need: steps, arithmetic, peak memory by part, from sizes and lengths alone.

Memory counts what lies above the interpreter and its libraries. Activations are those that a decoder with a gated MLP
keeps for its backward; they were compared with measurements on the CPU (``bench/bench_dpo.py`` prints both).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from accelerate.utils import DistributedType

from preflow.config import Launch, Recipe
from preflow.errors import UnknownShapeError
from preflow.models.flops import Shape, Work, forward_flops, packed_pair, sequence, shape_of, training_flops
from preflow.models.loading import LanguageModel
from preflow.models.precision import Precision
from preflow.stages.batching import smaller, within_budget
from preflow.training_settings import DpoSettings, TrainingSettings

#: Bytes per number of AdamW's two moments, by a part of the optimizer's name. (8 bits have a scale per 256 numbers.)
_MOMENTS = {"8bit": 2 * (1 + 4 / 256), "4bit": 1.0, "adafactor": 0.1, "sgd": 0.0}
_ADAM = 8.0
#: NF4 with double quantization: 4 bits, and 8-bit scales per 64 weights with their own per 256 (QLoRA, section 3).
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
#: On the CPU: what the libraries take for themselves, and the shares of activations and of a training head's logits
#: that the allocator holds between others and cannot use again. All measured (tests/integration/test_real_training.py).
_LIBRARIES, _SCATTERED, _SCATTERED_LOGITS = 27 * 2**20, 0.1, 0.25
_TILE_TOKENS, _TILE_WIDTH, _GPU_TOKENS = 512, 32768, 4096


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak, by part: the base model's weights, the adapter's, and what training adds.

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
    whole: float = 0.0

    @property
    def total(self) -> float:
        """All together."""
        return max(self.whole, self.weights + self.adapter + self.training)

    @property
    def training(self) -> float:
        """What training adds to a loaded model."""
        return self.gradients + self.optimizer + self.activations + self.logits + self.workspace


@dataclass(frozen=True, slots=True)
class Forecast:
    """One training stage.

    Attributes:
        rows: Rows or pairs.
        tokens: Tokens through the layers in all epochs, none of them padding.
        scored: Tokens that are scored in all epochs.
        steps: Optimizer steps.
        forward: Floating-point operations of all forwards.
        training: Of forwards and backwards.
        memory: At the peak.
    """

    rows: int
    tokens: int
    scored: int
    steps: int
    forward: float
    training: float
    memory: Memory


def work_of(lengths: Sequence[tuple[int, ...]]) -> list[Work]:
    """What rows take: pairs of (prompt, chosen, rejected) tokens, demonstrations of (all, response) tokens."""
    return [packed_pair(*each) if len(each) == 3 else sequence(*each) for each in lengths]


def forecast(
    shape: Shape, recipe: Recipe, settings: TrainingSettings, work: Sequence[Work], precision: Precision
) -> Forecast:
    """Foresee one training stage.

    Args:
        shape: The model's sizes.
        recipe: Precision, quantization and what is trained.
        settings: The stage's section.
        work: What each of its rows takes, at least one.
        precision: Where and in which numbers.
    """
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    per_step *= recipe.launch.num_processes
    epoch_steps = math.ceil(len(work) / per_step)
    steps = settings.max_steps if settings.max_steps > 0 else math.ceil(epoch_steps * settings.num_train_epochs)
    epochs = steps / epoch_steps
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    whole = Work(*(sum(getattr(each, name) for each in work) for name in ("tokens", "seen", "scored")))
    products = 1 if rank else 2
    return Forecast(
        rows=len(work),
        tokens=round(whole.tokens * epochs),
        scored=round(whole.scored * epochs),
        steps=steps,
        forward=epochs * forward_flops(shape, whole, rank),
        training=epochs
        * training_flops(shape, whole, rank, head_products=products, recompute=settings.gradient_checkpointing),
        memory=peak_memory(shape, recipe, settings, largest_batch(work, settings, recipe.seed), precision),
    )


def largest_batch(work: Sequence[Work], settings: TrainingSettings, seed: int) -> Work:
    """What the largest batch of an epoch is likely to take: the largest of one epoch shuffled by the seed."""
    order = list(work)
    random.Random(seed).shuffle(order)
    size, budget = settings.per_device_train_batch_size, settings.max_tokens_per_batch
    if budget is None:
        batches = [order[i : i + size] for i in range(0, len(order), size)]
    else:
        size *= settings.gradient_accumulation_steps
        steps = [order[i : i + size] for i in range(0, len(order), size)]
        batches = [
            [step[place] for place in part]
            for step in steps
            for part in within_budget([each.tokens for each in step], budget, padded=False)
        ]
    sums = [Work(*(sum(getattr(w, n) for w in batch) for n in ("tokens", "seen", "scored"))) for batch in batches]
    return max(sums, key=lambda each: each.tokens)


def peak_memory(shape: Shape, recipe: Recipe, settings: TrainingSettings, batch: Work, precision: Precision) -> Memory:
    """Bytes at the peak of training on a batch."""
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    lean = shape.lean and precision.device.type == "cpu" and precision.compute == precision.weights == torch.float32
    adapter = rank * shape.wide
    trained = adapter if rank else shape.parameters
    rest = shape.parameters - shape.linear
    held = shape.linear * _NF4 + rest * precision.weights.itemsize if recipe.use_4bit else 0.0
    shares = shared_among(recipe.launch)
    # Gathered at once: the layer at work, the next one, and the embedding or head. An estimate, not measured yet.
    gathered = (2 * shape.linear / shape.layers + rest) * precision.compute.itemsize if shares > 1 else 0.0
    whole = held or float(shape.parameters * precision.weights.itemsize)
    moments = next((size for part, size in _MOMENTS.items() if part in settings.optim), _ADAM)
    # An 8-bit optimizer keeps the moments of embeddings that train in 32 bits: transformers asks bitsandbytes to.
    exempt = shape.vocabulary * shape.hidden if "8bit" in settings.optim and not rank else 0
    return Memory(
        weights=whole / shares,
        adapter=adapter * 4.0 / shares,
        gradients=trained * 4.0 / shares,
        optimizer=(trained * moments + exempt * (_ADAM - moments)) / shares,
        activations=(kept := _activations(shape, settings, rank, batch, precision, lean, lean and not recipe.use_4bit)),
        logits=(logits := _logits(shape, rank, batch.scored, precision)),
        workspace=gathered + (_workspace(kept, 0.0 if rank else logits) if precision.device.type == "cpu" else 0.0),
        whole=whole + adapter * 4.0 if shares > 1 else 0.0,
    )


def _workspace(activations: float, logits: float) -> float:
    return _LIBRARIES + _SCATTERED * activations + _SCATTERED_LOGITS * logits


@cache
def shared_among(launch: Launch) -> int:
    """How many processes hold a model's weights, gradients and optimizer together: one each, unless FSDP or ZeRO 3."""
    if launch.config is None or not Path(launch.config).is_file():
        return 1
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(launch.config)
    stage = (config.deepspeed_config or {}).get("zero_stage")
    sharded = config.distributed_type == DistributedType.FSDP or stage == 3
    return launch.num_processes if sharded else 1


def _activations(
    shape: Shape,
    settings: TrainingSettings,
    rank: int,
    batch: Work,
    precision: Precision,
    lean_attention: bool,
    lean_mlp: bool,
) -> float:
    """What the layers keep for their backward.

    Per token and layer: the residual stream and what its two norms keep and give (5 widths), query, key and value as
    they enter attention with as many heads each and its result (4), the MLP's gate, its activation, the other half and
    their product, and an adapter's narrow results (7 matrices). On the CPU every response holds its own copy of its
    prompt's keys and values. ``fast_layers`` keeps queries, keys, values and the result once, no repeated heads, and
    under an adapter the MLP's gate and other half alone. The backward works on one more layer. (Counted with
    ``saved_tensors_hooks`` on Llama.)
    """
    attention = 2 * (shape.attention + shape.keys) if lean_attention else 4 * shape.attention
    inner = (2 if lean_mlp and rank else 4) * shape.inner
    per_token = (4 if lean_attention and rank else 5) * shape.hidden + attention + inner + 7 * rank
    kept = float(per_token * batch.tokens)
    if precision.device.type == "cpu" and not lean_attention and isinstance(settings, DpoSettings):
        shared = batch.tokens - batch.scored
        kept += 2.0 * shape.attention * (batch.tokens + shared)
    layers = 2 if settings.gradient_checkpointing else shape.layers + 1
    inputs = shape.layers * shape.hidden * batch.tokens if settings.gradient_checkpointing else 0
    return (layers * kept + inputs) * precision.compute.itemsize


def _logits(shape: Shape, rank: int, scored: int, precision: Precision) -> float:
    """A tile of logits, and the slope that the CPU's head keeps per scored token; or a head that trains.

    That head goes TRL's way: five copies of a tile in its backward on the CPU, and its gradient beside the embedding's.
    """
    tile = min(scored, _GPU_TOKENS) * min(shape.vocabulary, _TILE_WIDTH)
    if precision.device.type == "cpu" and rank:
        tiles = 1 if shape.lean else 3  # soft caps need the logits beside the probabilities
        return 4.0 * tiles * min(scored, _TILE_TOKENS) * shape.vocabulary + 3.0 * 4 * scored * shape.hidden
    if precision.device.type == "cpu":
        return 5.0 * 4 * tile + 4.0 * shape.vocabulary * shape.hidden
    return 2.0 * tile + 8.0 * scored * shape.hidden


def nearest_that_fits(
    shape: Shape, recipe: Recipe, settings: TrainingSettings, work: Sequence[Work], precision: Precision, room: float
) -> str | None:
    """The mildest of a few usual changes with which a stage fits into ``room`` bytes; None if none does."""
    batches = [{}, *_smaller_batches(settings)]
    for four_bit in sorted({recipe.use_4bit, recipe.tuning == "lora"}):
        for optim in dict.fromkeys((settings.optim, "paged_adamw_8bit")):
            for again in sorted({settings.gradient_checkpointing, True}):
                for batch in batches:
                    change: dict[str, object] = {**batch, "gradient_checkpointing": again, "optim": optim}
                    trial = settings.model_copy(update=change)
                    given = recipe.model_copy(update={"use_4bit": four_bit})
                    held = replace(precision, weights=precision.compute) if four_bit else precision
                    need = peak_memory(shape, given, trial, largest_batch(work, trial, recipe.seed), held)
                    if need.total <= room:
                        named = {**change, "use_4bit": four_bit}
                        now = {**settings.model_dump(), "use_4bit": recipe.use_4bit}
                        return ", ".join(f"{k}: {str(v).lower()}" for k, v in named.items() if v != now[k])
    return None


def _smaller_batches(settings: TrainingSettings) -> Iterator[dict[str, int]]:
    while less := smaller(settings):
        yield less
        settings = settings.model_copy(update=less)


def foreseen(
    model: LanguageModel,
    recipe: Recipe,
    settings: TrainingSettings,
    lengths: Sequence[tuple[int, ...]],
    precision: Precision,
) -> float | None:
    """Bytes that training a loaded model on rows of these lengths will add at its peak; None where nobody can say."""
    batch = largest_batch(work_of(lengths), settings, recipe.seed)
    try:
        shape = shape_of(model.config)
    except UnknownShapeError:  # a model of another build trains all the same
        return None
    return peak_memory(shape, recipe, settings, batch, precision).training
