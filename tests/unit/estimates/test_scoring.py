"""What stages that only score will need, by hand."""

import math
from dataclasses import replace
from typing import Any

from preflow.config import EvaluationSettings, Launch, Recipe
from preflow.estimates.flops import (
    forward_flops,
    packed_pair,
    sequence,
)
from preflow.estimates.scoring import (
    evaluation_memory,
    evaluation_work,
    forecast_scoring,
    held_so_that,
    proof_memory,
)
from preflow.estimates.training import work_of
from preflow.models.precision import Precision
from preflow.models.scoring import BATCH_TOKENS
from tests.unit.estimates.test_training import CARD, CPU, FSDP, llama_8b, recipe, smol


def test_scoring_by_hand() -> None:
    """Two pairs (30, 10, 20) run 29 + 30 tokens and score 30 each, forward alone."""
    work = work_of([(30, 10, 20)] * 2)
    seen = forecast_scoring(smol(), recipe(), work, CPU)
    assert (seen.rows, seen.tokens, seen.scored) == (2, 2 * 59, 2 * 30)
    assert seen.forward == forward_flops(smol(), work[0] + work[1], 16)
    assert seen.memory.training < seen.memory.weights
    assert seen.memory.gradients == seen.memory.optimizer == 0


def test_a_card_projects_few_positions_at_a_time_and_scores_with_a_whole_model() -> None:
    """4,096 positions, two copies of their logits in float32; weights shared out for training are whole for scoring."""
    sharded = recipe().model_copy(
        update={"launch": Launch(num_processes=4, config=str(FSDP)), "tuning": "full", "use_4bit": False}
    )
    work = [packed_pair(600, 200, 200)] * 100
    seen = forecast_scoring(llama_8b(), sharded, work, CARD).memory
    assert seen.logits == 2 * 4 * 4096 * 128256
    assert seen.weights == llama_8b().parameters * 2
    few = forecast_scoring(llama_8b(), sharded, [packed_pair(600, 20, 20)], CARD).memory
    assert few.logits == 2 * 4 * 40 * 128256


def test_a_small_card_scores_in_smaller_batches() -> None:
    """An 8B model in 4 bits with 5.7 GB of weights: 16,384 tokens need 13 GB, half as many fit 12; 0.1 GB never do."""
    given = recipe(gradient_checkpointing=True).model_copy(update={"use_4bit": True})
    work = [packed_pair(600, 200, 200)] * 100
    free, small, none = (forecast_scoring(llama_8b(), given, work, CARD, room) for room in (math.inf, 11e9, 1e8))
    assert (free.batch, small.batch, none.batch) == (BATCH_TOKENS, BATCH_TOKENS // 2, BATCH_TOKENS // 64)
    assert free.memory.total > 12e9
    assert small.memory.total <= 11e9
    assert small.memory.logits == 2 * 4 * 2048 * 128256
    assert small.tokens == free.tokens
    plain = given.model_copy(update={"use_4bit": False})

    def change(room: float) -> str | None:
        def fits(given: Recipe, held: Precision) -> bool:
            return forecast_scoring(llama_8b(), given, work, held, room).memory.total <= room

        return held_so_that(fits, plain, CARD)

    assert change(11e9) == "use_4bit: true"
    assert change(1e9) is None


def test_the_proofs_memory_by_hand() -> None:
    """One response of 150 tokens, in bfloat16: 151 rows of logits, and of 16 rows float64 logits and log-softmax."""
    shape = replace(smol(), vocabulary=152_000)
    given = recipe(per_device_train_batch_size=1)
    settings: Any = given.dpo
    seen = proof_memory(shape, given, settings, [(700, 150, 100)], CARD)
    assert seen.logits == 152_000 * (151 * 2 + 2 * 16 * 8)
    assert seen.weights == shape.parameters * 2
    assert seen.optimizer == seen.gradients == 0


def test_an_evaluation_by_hand() -> None:
    """DPO alone has two models. A pair: the reference's values are stored, so once.

    A prompt: two models answer; the policy and the reference each run over the policy's answer again.
    """
    given = recipe().model_copy(update={"evaluation": EvaluationSettings(kl_prompts=1, max_new_tokens=8)})
    work = evaluation_work(given, [], work_of([(30, 10, 20)]), [30, 40])
    assert work == [packed_pair(30, 10, 20), *[sequence(38, 8)] * 4]


def test_sampling_by_hand() -> None:
    """Llama-3-8B: 8 key heads of 128 in 32 layers, so a token keeps 2 x 1,024 x 32 numbers, 131,072 bytes.

    16 answers of 400 tokens to prompts of 1,000 keep 22,400 tokens' worth, 2.9 GB; SFT's and DPO's adapters lie there.
    A card without that room samples fewer at once.
    """
    given = Recipe.model_validate({"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}})
    given = given.model_copy(update={"evaluation": EvaluationSettings(max_new_tokens=400, kl_prompts=64)})
    shape, work = llama_8b(), [sequence(50, 10)]
    whole = evaluation_memory(shape, given, work, [30] * 99 + [1000], CARD)
    assert whole.workspace == 16 * 1400 * 131_072
    alone = forecast_scoring(shape, given, work, CARD).memory
    assert whole.adapter == 2 * alone.adapter
    less = evaluation_memory(shape, given, work, [30] * 99 + [1000], CARD, room=whole.total - 1)
    assert less.workspace == whole.workspace / 2
    few = evaluation_memory(shape, given, work, [1000] * 3, CARD)
    assert few.workspace == 3 * 1400 * 131_072
