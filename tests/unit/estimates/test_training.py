"""Steps, tokens and memory of a training, by hand."""

from pathlib import Path

import pytest

from preflow.estimates.training import estimate_training
from tests.unit.estimates.models import CPU, GPU, dpo_recipe, llama_8b, smollm2


def test_steps_and_tokens() -> None:
    """10 pairs, 8 a step: 2 steps an epoch, 6 in three."""
    recipe, section = dpo_recipe(num_train_epochs=3)
    found = estimate_training(smollm2(), recipe, section, [(30, 10, 20)] * 10, CPU)
    assert (found.rows, found.steps, found.tokens, found.loss_tokens) == (10, 6, 3 * 590, 900)


@pytest.mark.parametrize("rows", [2, 8])
def test_gradients_are_kept_where_a_token_budget_splits_a_step_into_micro_batches(rows: int) -> None:
    """8 pairs of 4,000 tokens at 16,000 a micro-batch are two, however the recipe writes 8; at 32,000 one.

    So many tokens keep more than the gradients need: the peak is before the update, with kept gradients alone.
    """
    shape = llama_8b()
    kept = {}
    for budget in (16_000, 32_000):
        recipe, section = dpo_recipe(
            "full", per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows, optim="sgd",
            max_tokens_per_batch=budget,
        )  # fmt: skip
        kept[budget] = estimate_training(shape, recipe, section, [(2000, 1000, 1000)] * 8, GPU).memory.gradients
    assert kept == {16_000: 4 * shape.parameters, 32_000: 0}


def test_a_common_prefix_runs_once_a_batch() -> None:
    """Three pairs of 10 + 5 + 5 tokens (19 tokens packed), two a batch, share 7 tokens: 2 x 19 - 7, and 19."""
    recipe, section = dpo_recipe(per_device_train_batch_size=2, gradient_accumulation_steps=1)
    rows = [(10, 5, 5)] * 3
    alone, shared = (estimate_training(smollm2(), recipe, section, rows, CPU, common) for common in (0, 7))
    assert alone.tokens == 3 * 19
    assert shared.tokens == 3 * 19 - 7
    assert shared.training < alone.training
    assert shared.memory.activations < alone.memory.activations
    longest = section.max_seq_length
    cut = [(longest - 5, 5, 5)] * 3
    assert estimate_training(smollm2(), recipe, section, cut, CPU, 7).tokens == 3 * (longest + 4)


def test_recipes_name_the_usual_settings() -> None:
    from preflow.config.loading import load_recipe

    folder = Path(__file__).parents[3] / "recipes"
    small, large = (load_recipe(folder / f"llama-8b-qlora-{name}.yaml").dpo for name in ("12-16gb", "16gb-up"))
    assert small is not None
    assert large is not None
    got = [
        (s.per_device_train_batch_size, s.gradient_accumulation_steps, s.lora_r, s.max_seq_length)
        for s in (small, large)
    ]
    assert got == [(2, 4, 16, 1024), (4, 2, 64, 2048)]
