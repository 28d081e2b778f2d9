"""What forward passes alone need: reference log-probs, the evaluation, and DPO's checks beside its training.

Nothing is kept for a backward: one layer's activations and the logits of the rows at hand are all that is needed beside
the weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from preflow.config import Launch, Recipe
from preflow.config.training import DpoSettings
from preflow.dpo import start_checks
from preflow.estimates.activations import ExecutionPath, head_memory
from preflow.estimates.flops import ModelShape, TokenWork, forward_flops, sequence
from preflow.estimates.memory import Memory, peak_memory
from preflow.estimates.workload import Lengths, batch_work, batch_works, packed_works
from preflow.models.precision import Precision
from preflow.models.scoring import GPU_BATCHES

#: Copies of a row's logits that a score takes: themselves and their log-softmax.
_LOGITS = 2


@dataclass(frozen=True, slots=True)
class BatchedMemory:
    """Peak memory of forwards whose batches a run halves until they fit.

    Attributes:
        memory: At the peak, with the largest batch that fits, or else the smallest there is.
        batch: Size of that batch; 0 where rows run alone.
        unit: What is counted: ``tokens``, ``prompts`` or ``pairs``.
        halved: Whether it is smaller than where nothing runs out of memory.
    """

    memory: Memory
    batch: int
    unit: str
    halved: bool = False

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.memory.total


@dataclass(frozen=True, slots=True)
class ScoringEstimate:
    """One scoring stage.

    Attributes:
        rows: Rows, pairs or responses, each under every model that scores it.
        tokens: Tokens through the layers.
        head_positions: lm_head positions, whose logits are computed.
        forward: Floating-point operations.
        peak: Memory and the batch that decides it.
    """

    rows: int
    tokens: int
    head_positions: int
    forward: float
    peak: BatchedMemory

    @property
    def memory(self) -> Memory:
        """At the peak."""
        return self.peak.memory


def estimate_scoring(
    shape: ModelShape, recipe: Recipe, work: Sequence[TokenWork], precision: Precision, available: float = math.inf
) -> ScoringEstimate:
    """Estimate a stage that scores rows.

    Args:
        shape: The model's sizes.
        recipe: Quantization and what was trained.
        work: Token counts of each row, once for every model that scores it; at least one.
        precision: Device and dtypes.
        available: Bytes of a GPU, on which batches halve until they fit.
    """
    _, settings = recipe.training_sections[-1]
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    whole = sum(work, TokenWork(0, 0, 0))
    peak = _scoring_memory(shape, recipe, work, precision, available)
    return ScoringEstimate(len(work), whole.tokens, whole.head_positions, forward_flops(shape, whole, rank), peak)


def _scoring_memory(
    shape: ModelShape, recipe: Recipe, work: Sequence[TokenWork], precision: Precision, available: float
) -> BatchedMemory:
    longest = max(each.tokens for each in work)
    head = _LOGITS * 4.0 * shape.vocabulary * max(each.head_positions for each in work)
    if precision.device.type == "cpu":  # one row per core
        cores = torch.get_num_threads()
        return BatchedMemory(_forward_memory(shape, recipe, precision, longest * cores, head * cores), 0, "tokens")
    if not shape.supports_packing:  # one row after another
        return BatchedMemory(_forward_memory(shape, recipe, precision, longest, head), 0, "tokens")
    tokens_in_all, positions = sum(each.tokens for each in work), sum(each.head_positions for each in work)
    for batch, head_rows in GPU_BATCHES:
        tokens = max(longest, min(batch, tokens_in_all))
        projected = min(head_rows, tokens, positions)  # so many positions at a time
        memory = _forward_memory(shape, recipe, precision, tokens, _LOGITS * 4.0 * projected * shape.vocabulary)
        if memory.total <= available:
            break
    return BatchedMemory(memory, batch, "tokens", halved=batch < GPU_BATCHES[0][0])


def _forward_memory(shape: ModelShape, recipe: Recipe, precision: Precision, tokens: int, logits: float) -> Memory:
    """Memory of a forward of so many tokens that keeps nothing: one layer's activations, and the logits."""
    alone = recipe.model_copy(update={"launch": Launch()})  # a rank that scores holds the full weights
    _, settings = recipe.training_sections[-1]
    loaded = peak_memory(shape, alone, settings, TokenWork(1, 1, 1), precision)
    layer = 5 * shape.hidden + 4 * shape.query_width + 4 * shape.mlp_width
    activations = float(layer * tokens * precision.compute.itemsize)
    return Memory(
        weights=loaded.weights, adapter=loaded.adapter, gradients=0.0, optimizer=0.0, activations=activations,
        logits=logits, workspace=0.0,
    )  # fmt: skip


def evaluation_memory(
    shape: ModelShape,
    recipe: Recipe,
    work: Sequence[TokenWork],
    prompts: Sequence[int],
    precision: Precision,
    available: float = math.inf,
) -> BatchedMemory:
    """Peak memory of an evaluation: while it scores, or while it samples responses, whichever is higher.

    Sampling keeps keys and values of every token of a batch of the longest prompts with their responses, and begins
    with a forward over those prompts. SFT's and DPO's adapters share one base.

    Args:
        shape: The model's sizes.
        recipe: Which models there are, and how responses are sampled.
        work: As ``evaluation_work`` gives it.
        prompts: Tokens of the held-out prompts.
        precision: Device and dtypes.
        available: Bytes of a GPU, on which batches halve until they fit.
    """
    settings = recipe.evaluation
    adapters = len(recipe.training_sections)
    scoring = _scoring_memory(shape, recipe, work, precision, available)
    scoring = replace(scoring, memory=replace(scoring.memory, adapter=scoring.memory.adapter * adapters))
    size = first = min(settings.generation_batch_size, len(prompts), settings.kl_prompts)
    while size:
        logits = 4.0 * size * shape.vocabulary * _LOGITS
        memory = _forward_memory(shape, recipe, precision, size * max(prompts), logits)
        values = 2.0 * shape.key_width * shape.layers * size * (max(prompts) + settings.max_new_tokens)
        cache = values * precision.compute.itemsize
        sampling = replace(memory, adapter=scoring.memory.adapter, workspace=cache)
        if sampling.total <= available or size == 1:
            return max((scoring, BatchedMemory(sampling, size, "prompts", size < first)), key=lambda peak: peak.total)
        size //= 2
    return scoring


def start_check_memory(
    shape: ModelShape,
    recipe: Recipe,
    settings: DpoSettings,
    pairs: Sequence[Lengths],
    precision: Precision,
    available: float = math.inf,
) -> BatchedMemory:
    """Peak memory of DPO's start-up checks: one response by a plain forward, or a batch of pairs through the policy.

    The plain forward holds the response's logits, and those of a few positions in float64 with their log-softmax.
    Batches halve until they fit, as a run of one process does where it runs out of memory.
    """
    sample = start_checks.sample(pairs, settings.proof_sample)
    longest, response = max((row[0] + max(row[1:]), max(row[1:])) for row in sample)
    widened = 2 * 8 * min(start_checks.TILE, response)
    logits = shape.vocabulary * ((response + 1) * precision.compute.itemsize + widened)
    plain = BatchedMemory(_forward_memory(shape, recipe, precision, longest, float(logits)), 0, "pairs")
    ordered, count = sorted(pairs, key=lambda row: row[0] + max(row[1:])), start_checks.BATCH
    path = ExecutionPath.of(shape, recipe, settings, precision)
    while True:
        batch = batch_work(ordered[-count:], packed=shape.supports_packing)
        head = head_memory(shape, batch.head_positions, path)
        policy = _forward_memory(shape, recipe, precision, batch.tokens, head)
        if policy.total <= available or count == 1 or recipe.launch.num_processes > 1:
            batched = BatchedMemory(policy, count, "pairs", halved=count < start_checks.BATCH)
            return max((plain, batched), key=lambda peak: peak.total)
        count //= 2


def scoring_work(rows: Sequence[Lengths], *, packed: bool) -> list[TokenWork]:
    """Token counts of rows that are scored by themselves: a pair's prompt runs once, or once per response."""
    if packed:
        return packed_works(rows)
    each = [((row[0] + response, response) for response in row[1:]) if len(row) == 3 else [row] for row in rows]
    return [sum((sequence(*one) for one in some), TokenWork(0, 0, 0)) for some in each]


def start_check_work(
    recipe: Recipe, settings: DpoSettings, pairs: Sequence[Lengths], *, packed: bool, common: int = 0
) -> TokenWork:
    """Token counts of DPO's start-up checks: all training pairs through the policy, a sample by plain forwards.

    The policy runs the prefix that a batch's prompts share (``common`` tokens) once. The plain forward projects each
    response's positions and one more, under the reference and, after SFT, under the base too.
    """
    sample = start_checks.sample(pairs, settings.proof_sample)
    lengths = [(row[0] + response, response) for row in sample for response in row[1:]]
    plain = sum((TokenWork(n, n * (n + 1) // 2, response + 1) for n, response in lengths), TokenWork(0, 0, 0))
    ordered = sorted(pairs, key=lambda row: row[0] + max(row[1:]))
    batches = [ordered[i : i + start_checks.BATCH] for i in range(0, len(ordered), start_checks.BATCH)]
    policy = batch_works(batches, settings, packed=packed, common=common)
    return sum(policy, plain if recipe.sft is None else plain + plain)


def held_out_work(settings: DpoSettings, steps: int, held_out: Sequence[Lengths], *, packed: bool) -> TokenWork:
    """Token counts of DPO's held-out evaluations: before the first step, every ``eval_steps``, and at the end."""
    pairs = start_checks.sample(held_out, settings.eval_pairs)
    nothing, size = TokenWork(0, 0, 0), settings.eval_batch_size
    logits = sum((sequence(prompt + chosen + 1, chosen + 1) for prompt, chosen, _ in pairs), nothing)
    both = sum((batch_work(pairs[i : i + size], packed=packed) for i in range(0, len(pairs), size)), nothing)
    every = settings.eval_steps or steps
    evaluations = steps // every + (steps % every > 0)
    return sum([logits + both] * evaluations, logits)


def evaluation_work(
    recipe: Recipe, examples: Sequence[TokenWork], pairs: Sequence[TokenWork], prompts: Sequence[int]
) -> list[TokenWork]:
    """Token counts of an evaluation: held-out rows, sampled responses of full length, and their KL divergences.

    Args:
        recipe: Which models there are, and how many responses are sampled.
        examples: Held-out SFT examples, for perplexity.
        pairs: Held-out pairs, for preferences; the reference's log-probs of them are stored already.
        prompts: Tokens of the held-out prompts.
    """
    models = 1 + len(recipe.training_sections)
    settings = recipe.evaluation
    found = [each for each in examples for _ in range(models)]
    found += [each for each in pairs for _ in range(models - 1 if recipe.dpo is not None else models)]
    for prompt in list(prompts)[: settings.kl_prompts]:
        response = sequence(prompt + settings.max_new_tokens, settings.max_new_tokens)
        sampled, references = models, models * (models - 1) // 2
        policies = models - 1
        found += [response] * (sampled + policies + references)
    return found
