"""What scoring alone will need: the reference's log-probs, the evaluation, and what DPO looks at beside its training.

Rows run forward alone and nothing is kept for a backward: a layer's worth of activations and the logits of the rows at
hand are all that comes on top of the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from preflow.config import EvaluationSettings, Launch, Recipe
from preflow.models.flops import Shape, Work, forward_flops, sequence
from preflow.models.precision import Precision
from preflow.models.scoring import BATCH_TOKENS, HEAD_ROWS
from preflow.stages import proof
from preflow.stages.forecast import Lengths, work_of, work_of_batch
from preflow.stages.forecast_memory import Memory, peak_memory
from preflow.training_settings import DpoSettings

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
    """

    rows: int
    tokens: int
    scored: int
    forward: float
    memory: Memory


def forecast_scoring(shape: Shape, recipe: Recipe, work: Sequence[Work], precision: Precision) -> Scoring:
    """Foresee a stage that scores rows.

    Args:
        shape: The model's sizes.
        recipe: Quantization and what was trained.
        work: What each row takes, once for every model that scores it; at least one.
        precision: Where and in which numbers.
    """
    settings = recipe.dpo or recipe.sft
    assert settings is not None, "a recipe has at least one training stage"
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    whole = sum(work, Work(0, 0, 0))
    longest = max(each.tokens for each in work)
    scored = max(each.scored for each in work)
    if precision.device.type == "cpu":  # one row per core
        tokens, projected = longest * torch.get_num_threads(), scored * torch.get_num_threads()
    else:
        tokens = max(longest, min(BATCH_TOKENS, whole.tokens))
        projected = min(HEAD_ROWS, tokens, whole.scored)  # so many at a time
    alone = recipe.model_copy(update={"launch": Launch()})  # who scores holds the whole model
    held = peak_memory(shape, alone, settings, Work(1, 1, 1), precision)
    layer = 5 * shape.hidden + 4 * shape.attention + 4 * shape.inner
    memory = Memory(
        weights=held.weights,
        adapter=held.adapter,
        gradients=0.0,
        optimizer=0.0,
        activations=float(layer * tokens * precision.compute.itemsize),
        logits=float(_LOGITS * 4 * projected * shape.vocabulary),
        workspace=0.0,
    )
    return Scoring(len(work), whole.tokens, whole.scored, forward_flops(shape, whole, rank), memory)


def scoring_work(rows: Sequence[Lengths], *, packed: bool) -> list[Work]:
    """What rows take that are scored for themselves: a pair's prompt once, or once for each response."""
    if packed:
        return work_of(rows)
    each = [((row[0] + response, response) for response in row[1:]) if len(row) == 3 else [row] for row in rows]
    return [sum((sequence(*one) for one in some), Work(0, 0, 0)) for some in each]


def proof_work(recipe: Recipe, settings: DpoSettings, pairs: Sequence[Lengths], *, packed: bool) -> Work:
    """What the proof before the first step runs: every training pair through the policy, a sample in the plainest way.

    That way projects every position, under the reference and, after an SFT stage, under the base too.
    """
    sample = proof.sample(pairs, settings.proof_sample)
    lengths = [row[0] + response for row in sample for response in row[1:]]
    plain = sum((Work(n, n * (n + 1) // 2, n) for n in lengths), Work(0, 0, 0))
    ordered = sorted(pairs, key=lambda row: row[0] + max(row[1:]))
    policy = [work_of_batch(ordered[i : i + proof.BATCH], packed=packed) for i in range(0, len(ordered), proof.BATCH)]
    return sum(policy, plain if recipe.sft is None else plain + plain)


def looks_work(settings: DpoSettings, steps: int, held_out: Sequence[Lengths], *, packed: bool) -> Work:
    """What the looks at held-out pairs run: once before the first step, and every ``eval_steps`` and at the end."""
    pairs = proof.sample(held_out, settings.eval_pairs)
    nothing, size = Work(0, 0, 0), settings.per_device_train_batch_size
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
    models = 1 + sum(section is not None for section in (recipe.sft, recipe.dpo))
    settings: EvaluationSettings = recipe.evaluation
    found = [each for each in demonstrations for _ in range(models)]
    found += [each for each in pairs for _ in range(models - 1 if recipe.dpo is not None else models)]
    for prompt in list(prompts)[: settings.kl_prompts]:
        answer = sequence(prompt + settings.max_new_tokens, settings.max_new_tokens)
        sampled, before = models, models * (models - 1) // 2
        policies = models - 1
        found += [answer] * (sampled + policies + before)
    return found
