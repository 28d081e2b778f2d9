"""Estimates of stages that only run forwards, by hand."""

import math
from dataclasses import replace

from preflow.config import EvaluationSettings, Launch, Recipe
from preflow.estimates.fit import Change, smallest_fitting_change
from preflow.estimates.flops import TokenWork, forward_flops, packed_pair, sequence
from preflow.estimates.scoring import (
    estimate_scoring,
    evaluation_memory,
    evaluation_work,
    held_out_work,
    scoring_work,
    start_check_memory,
    start_check_work,
)
from preflow.estimates.workload import packed_works
from preflow.models.precision import Precision
from preflow.models.scoring import BATCH_TOKENS
from tests.unit.estimates.models import CPU, GPU, LAUNCHES, dpo_recipe, llama_8b, smollm2


def test_scoring_by_hand() -> None:
    """Two pairs (30, 10, 20) run 29 + 30 tokens and project 30 each, forward alone."""
    work = packed_works([(30, 10, 20)] * 2)
    recipe, _ = dpo_recipe()
    seen = estimate_scoring(smollm2(), recipe, work, CPU)
    assert (seen.rows, seen.tokens, seen.head_positions) == (2, 2 * 59, 2 * 30)
    assert seen.forward == forward_flops(smollm2(), work[0] + work[1], 16)
    assert seen.memory.training < seen.memory.weights
    assert seen.memory.gradients == seen.memory.optimizer == 0


def test_a_gpu_projects_few_positions_at_a_time_and_scores_with_full_weights() -> None:
    """4,096 positions, two copies of their logits in float32; weights sharded for training are full for scoring."""
    sharded = dpo_recipe()[0].model_copy(
        update={
            "launch": Launch(num_processes=4, config=str(LAUNCHES / "fsdp.yaml")),
            "tuning": "full",
            "use_4bit": False,
        }
    )
    work = [packed_pair(600, 200, 200)] * 100
    seen = estimate_scoring(llama_8b(), sharded, work, GPU).memory
    assert seen.logits == 2 * 4 * 4096 * 128256
    assert seen.weights == llama_8b().parameters * 2
    few = estimate_scoring(llama_8b(), sharded, [packed_pair(600, 20, 20)], GPU).memory
    assert few.logits == 2 * 4 * 40 * 128256


def test_a_small_gpu_scores_in_smaller_batches() -> None:
    """An 8B model in 4 bits with 5.7 GB of weights: 16,384 tokens need 13 GB, half as many fit 12; 0.1 GB never do."""
    given = dpo_recipe(gradient_checkpointing=True)[0].model_copy(update={"use_4bit": True})
    work = [packed_pair(600, 200, 200)] * 100
    free, small, none = (estimate_scoring(llama_8b(), given, work, GPU, size) for size in (math.inf, 11e9, 1e8))
    assert (free.peak.batch, small.peak.batch, none.peak.batch) == (BATCH_TOKENS, BATCH_TOKENS // 2, BATCH_TOKENS // 64)
    assert (free.peak.halved, small.peak.halved) == (False, True)
    assert free.memory.total > 12e9
    assert small.memory.total <= 11e9
    assert small.memory.logits == 2 * 4 * 2048 * 128256
    assert small.tokens == free.tokens
    plain = given.model_copy(update={"use_4bit": False})

    def change(available: float) -> Change | None:
        def fits(given: Recipe, precision: Precision) -> bool:
            return estimate_scoring(llama_8b(), given, work, precision, available).memory.total <= available

        return smallest_fitting_change(fits, plain, GPU)

    assert str(change(11e9)) == "use_4bit: true"
    assert change(1e9) is None


def test_start_check_memory_by_hand() -> None:
    """One response of 150 tokens, in bfloat16: 151 rows of logits, and of 16 rows float64 logits and log-softmax."""
    shape = replace(smollm2(), vocabulary=152_000)
    recipe, section = dpo_recipe(per_device_train_batch_size=1)
    seen = start_check_memory(shape, recipe, section, [(700, 150, 100)], GPU).memory
    assert seen.logits == 152_000 * (151 * 2 + 2 * 16 * 8)
    assert seen.weights == shape.parameters * 2
    assert seen.optimizer == seen.gradients == 0


def test_an_evaluation_by_hand() -> None:
    """DPO alone has two models. A pair: the reference's values are stored, so once.

    A prompt: two models respond; the policy and the reference each run over the policy's response again.
    """
    given = dpo_recipe()[0].model_copy(update={"evaluation": EvaluationSettings(kl_prompts=1, max_new_tokens=8)})
    work = evaluation_work(given, [], packed_works([(30, 10, 20)]), [30, 40])
    assert work == [packed_pair(30, 10, 20), *[sequence(38, 8)] * 4]


def test_sampling_by_hand() -> None:
    """Llama-3-8B: 8 key heads of 128 in 32 layers, so a token keeps 2 x 1,024 x 32 values, 131,072 bytes.

    16 responses of 400 tokens to prompts of 1,000 keep 22,400 tokens, 2.9 GB; both adapters are loaded. A GPU without
    that memory samples fewer at once.
    """
    given = Recipe.model_validate({"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}})
    given = given.model_copy(update={"evaluation": EvaluationSettings(max_new_tokens=400, kl_prompts=64)})
    shape, work = llama_8b(), [sequence(50, 10)]
    whole = evaluation_memory(shape, given, work, [30] * 99 + [1000], GPU)
    assert whole.memory.workspace == 16 * 1400 * 131_072
    alone = estimate_scoring(shape, given, work, GPU).memory
    assert whole.memory.adapter == 2 * alone.adapter
    less = evaluation_memory(shape, given, work, [30] * 99 + [1000], GPU, available=whole.total - 1)
    assert less.memory.workspace == whole.memory.workspace / 2
    assert (whole.batch, whole.unit, whole.halved) == (16, "prompts", False)
    assert (less.batch, less.unit, less.halved) == (8, "prompts", True)
    few = evaluation_memory(shape, given, work, [1000] * 3, GPU)
    assert few.memory.workspace == 3 * 1400 * 131_072


def test_what_runs_beside_the_training_by_hand() -> None:
    """Two pairs (3, 2, 1), one of them in the sample; one held-out pair, evaluated before and after each of 2 steps.

    Packed 5 tokens a pair, 3 with loss. The plain forward runs and projects 5 + 4 tokens, for the base too after SFT.
    A held-out evaluation's logits run 3 + 2 tokens and project 2 + 1.
    """
    recipe, section = dpo_recipe(proof_sample=1, eval_pairs=1, eval_steps=1)
    checks = start_check_work(recipe, section, [(3, 2, 1)] * 2, packed=True)
    assert (checks.tokens, checks.head_positions) == (2 * 5 + 9, 2 * 3 + (2 + 1) + (1 + 1))
    assert start_check_work(recipe, section, [(3, 2, 1)] * 2, packed=True, common=2).tokens == checks.tokens - 2
    after = Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {"proof_sample": 1}})
    assert start_check_work(after, section, [(3, 2, 1)] * 2, packed=True).tokens == 2 * 5 + 2 * 9
    during = held_out_work(section, 2, [(3, 2, 1)], packed=True)
    assert (during.tokens, during.head_positions) == (3 * 5 + 2 * 5, 3 * 3 + 2 * 3)
    assert held_out_work(section.model_copy(update={"eval_pairs": 0}), 2, [(3, 2, 1)], packed=True) == TokenWork(
        0, 0, 0
    )


def test_scoring_without_packing_runs_a_prompt_for_each_response() -> None:
    assert [each.tokens for each in scoring_work([(3, 2, 1)], packed=False)] == [4 + 3]
    assert [each.tokens for each in scoring_work([(3, 2, 1)], packed=True)] == [5]
