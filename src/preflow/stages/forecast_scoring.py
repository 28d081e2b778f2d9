"""What the stages that only score will need: the reference's log-probs, and the evaluation.

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
from preflow.stages.forecast import Memory, peak_memory

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
