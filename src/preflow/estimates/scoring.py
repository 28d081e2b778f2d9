"""What scoring alone will need: the reference's log-probs, the evaluation, and what DPO looks at beside its training.

Rows run forward alone and nothing is kept for a backward: a layer's worth of activations and the logits of the rows at
hand are all that comes on top of the weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from preflow.config import EvaluationSettings, Launch, Recipe
from preflow.config.training import DpoSettings
from preflow.dpo import start_checks
from preflow.estimates.flops import Shape, Work, forward_flops, sequence
from preflow.estimates.memory import Memory, head_memory, peak_memory
from preflow.estimates.training import Lengths, work_of, work_of_batch, works_of
from preflow.models.precision import Precision
from preflow.models.scoring import GPU_BATCHES

#: Copies of a row's logits that a score takes: themselves and their log-softmax.
_LOGITS = 2


@dataclass(frozen=True, slots=True)
class Scoring:
    """One scoring stage.

    Attributes:
        rows: Rows, pairs or responses, each under every model that scores it.
        tokens: Tokens through the layers.
        scored: Tokens projected to the vocabulary.
        forward: Floating-point operations.
        memory: At the peak.
        batch: Tokens of a batch, where rows run together.
    """

    rows: int
    tokens: int
    scored: int
    forward: float
    memory: Memory
    batch: int | None = None


def forecast_scoring(
    shape: Shape, recipe: Recipe, work: Sequence[Work], precision: Precision, room: float = math.inf
) -> Scoring:
    """Foresee a stage that scores rows.

    Args:
        shape: The model's sizes.
        recipe: Quantization and what was trained.
        work: What each row takes, once for every model that scores it; at least one.
        precision: Where and in which numbers.
        room: Bytes of a GPU, whose batches halve until they fit, as they do when its memory runs out.
    """
    _, settings = recipe.training_sections[-1]
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    whole = sum(work, Work(0, 0, 0))
    longest = max(each.tokens for each in work)
    scored = max(each.scored for each in work)
    batch = None
    if precision.device.type == "cpu":  # one row per core
        cores = torch.get_num_threads()
        memory = _alone(shape, recipe, precision, longest * cores, _LOGITS * 4.0 * scored * cores * shape.vocabulary)
    elif not shape.packed:  # one row after another
        memory = _alone(shape, recipe, precision, longest, _LOGITS * 4.0 * scored * shape.vocabulary)
    else:
        for batch, head_rows in GPU_BATCHES:
            tokens = max(longest, min(batch, whole.tokens))
            projected = min(head_rows, tokens, whole.scored)  # so many at a time
            memory = _alone(shape, recipe, precision, tokens, _LOGITS * 4.0 * projected * shape.vocabulary)
            if memory.total <= room:
                break
    return Scoring(len(work), whole.tokens, whole.scored, forward_flops(shape, whole, rank), memory, batch)


def _alone(shape: Shape, recipe: Recipe, precision: Precision, tokens: int, logits: float) -> Memory:
    """A forward of so many tokens of which nothing is kept: a layer at work, and the logits at hand."""
    alone = recipe.model_copy(update={"launch": Launch()})  # who scores holds the whole model
    _, settings = recipe.training_sections[-1]
    held = peak_memory(shape, alone, settings, Work(1, 1, 1), precision)
    layer = 5 * shape.hidden + 4 * shape.attention + 4 * shape.inner
    working = float(layer * tokens * precision.compute.itemsize)
    return Memory(
        weights=held.weights, adapter=held.adapter, gradients=0.0, optimizer=0.0, activations=working, logits=logits,
        workspace=0.0,
    )  # fmt: skip


def evaluation_memory(
    shape: Shape,
    recipe: Recipe,
    work: Sequence[Work],
    prompts: Sequence[int],
    precision: Precision,
    room: float = math.inf,
) -> Memory:
    """What an evaluation holds at its peak: while it scores, or while it samples answers.

    Sampling keeps keys and values of every token of a batch of the longest prompts with their answers, and begins with
    a forward over those prompts. SFT's and DPO's adapters lie over one base.

    Args:
        shape: The model's sizes.
        recipe: Which models there are, and how answers are sampled.
        work: As ``evaluation_work`` gives it.
        prompts: Tokens of the held-out prompts.
        precision: Where and in which numbers.
        room: Bytes of a GPU, on which batches halve until they fit, as they do when its memory runs out.
    """
    settings: EvaluationSettings = recipe.evaluation
    adapters = len(recipe.training_sections)
    scored = forecast_scoring(shape, recipe, work, precision, room).memory
    scored = replace(scored, adapter=scored.adapter * adapters)
    size = min(settings.generation_batch_size, len(prompts), settings.kl_prompts)
    while size:
        last = 4.0 * size * shape.vocabulary * _LOGITS
        memory = _alone(shape, recipe, precision, size * max(prompts), last)
        numbers = 2.0 * shape.keys * shape.layers * size * (max(prompts) + settings.max_new_tokens)
        cache = numbers * precision.compute.itemsize
        sampled = replace(memory, adapter=scored.adapter, workspace=cache)
        if sampled.total <= room or size == 1:
            return max((scored, sampled), key=lambda memory: memory.total)
        size //= 2
    return scored


def held_so_that(fits: Callable[[Recipe, Precision], bool], recipe: Recipe, precision: Precision) -> str | None:
    """The mildest change of how weights are held with which something fits; None if none does."""
    changes: list[dict[str, object]] = [{"tuning": "lora"}] if recipe.tuning == "full" else []
    changes += [{**change, "use_4bit": True} for change in (changes or [{}])] if not recipe.use_4bit else []
    for change in changes:
        given = recipe.model_copy(update=change)
        held = replace(precision, weights=torch.float32 if given.tuning == "full" else precision.compute)
        if fits(given, held):
            return ", ".join(f"{name}: {str(value).lower()}" for name, value in change.items())
    return None


def proof_memory(
    shape: Shape,
    recipe: Recipe,
    settings: DpoSettings,
    pairs: Sequence[Lengths],
    precision: Precision,
    room: float = math.inf,
) -> Memory:
    """What the proof holds at its peak: one response in the plainest way, or a batch of pairs through the policy.

    The plain way holds the response's logits, and of a few positions those in float64 with their log-softmax. Batches
    are halved until they have room, as a run of one process does where memory ends.
    """
    sample = start_checks.sample(pairs, settings.proof_sample)
    whole, response = max((row[0] + max(row[1:]), max(row[1:])) for row in sample)
    widened = 2 * 8 * min(start_checks.TILE, response)
    logits = shape.vocabulary * ((response + 1) * precision.compute.itemsize + widened)
    plain = _alone(shape, recipe, precision, whole, float(logits))
    ordered, count = sorted(pairs, key=lambda row: row[0] + max(row[1:])), start_checks.BATCH
    while True:
        batch = work_of_batch(ordered[-count:], packed=shape.packed)
        head = head_memory(shape, recipe, settings, batch.scored, precision)
        policy = _alone(shape, recipe, precision, batch.tokens, head)
        if policy.total <= room or count == 1 or recipe.launch.num_processes > 1:
            return max((plain, policy), key=lambda memory: memory.total)
        count //= 2


def scoring_work(rows: Sequence[Lengths], *, packed: bool) -> list[Work]:
    """What rows take that are scored for themselves: a pair's prompt once, or once for each response."""
    if packed:
        return work_of(rows)
    each = [((row[0] + response, response) for response in row[1:]) if len(row) == 3 else [row] for row in rows]
    return [sum((sequence(*one) for one in some), Work(0, 0, 0)) for some in each]


def proof_work(
    recipe: Recipe, settings: DpoSettings, pairs: Sequence[Lengths], *, packed: bool, common: int = 0
) -> Work:
    """What the proof before the first step runs: every training pair through the policy, a sample in the plainest way.

    The policy runs what a batch's prompts begin with (``common`` tokens) once. The plain way projects each response's
    positions and one more, under the reference and, after SFT, under the base too.
    """
    sample = start_checks.sample(pairs, settings.proof_sample)
    lengths = [(row[0] + response, response) for row in sample for response in row[1:]]
    plain = sum((Work(n, n * (n + 1) // 2, response + 1) for n, response in lengths), Work(0, 0, 0))
    ordered = sorted(pairs, key=lambda row: row[0] + max(row[1:]))
    batches = [ordered[i : i + start_checks.BATCH] for i in range(0, len(ordered), start_checks.BATCH)]
    policy = works_of(batches, settings, packed=packed, common=common)
    return sum(policy, plain if recipe.sft is None else plain + plain)


def looks_work(settings: DpoSettings, steps: int, held_out: Sequence[Lengths], *, packed: bool) -> Work:
    """What the looks at held-out pairs run: once before the first step, and every ``eval_steps`` and at the end."""
    pairs = start_checks.sample(held_out, settings.eval_pairs)
    nothing, size = Work(0, 0, 0), settings.pairs_per_look
    logits = sum((sequence(prompt + chosen + 1, chosen + 1) for prompt, chosen, _ in pairs), nothing)
    both = sum((work_of_batch(pairs[i : i + size], packed=packed) for i in range(0, len(pairs), size)), nothing)
    every = settings.eval_steps or steps
    looks = steps // every + (steps % every > 0)
    return sum([logits + both] * looks, logits)


def evaluation_work(
    recipe: Recipe, demonstrations: Sequence[Work], pairs: Sequence[Work], prompts: Sequence[int]
) -> list[Work]:
    """What an evaluation runs: held-out rows, sampled responses of full length, and their KL from every model before.

    Args:
        recipe: Which models there are, and how many responses are sampled.
        demonstrations: Held-out ones, for perplexity.
        pairs: Held-out ones, for preferences; those of the reference are stored already.
        prompts: Tokens of the held-out prompts.
    """
    models = 1 + len(recipe.training_sections)
    settings: EvaluationSettings = recipe.evaluation
    found = [each for each in demonstrations for _ in range(models)]
    found += [each for each in pairs for _ in range(models - 1 if recipe.dpo is not None else models)]
    for prompt in list(prompts)[: settings.kl_prompts]:
        answer = sequence(prompt + settings.max_new_tokens, settings.max_new_tokens)
        sampled, before = models, models * (models - 1) // 2
        policies = models - 1
        found += [answer] * (sampled + policies + before)
    return found
