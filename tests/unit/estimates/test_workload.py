"""Micro-batches and their token counts, by hand."""

from transformers import GPTNeoXConfig

from preflow.estimates.flops import TokenWork, shape_of
from preflow.estimates.training import estimate_training
from preflow.estimates.workload import batch_work, common_prefix_length, micro_batches
from tests.unit.estimates.models import CPU, dpo_recipe, tiny_llama


def test_padding_is_counted_for_models_that_need_it() -> None:
    """Pairs (3, 2, 1) and (1, 1, 1): packed 5 + 2 tokens; padded four rows of 5. Texts of 7 and 4: two of 7."""
    pairs, texts = [(3, 2, 1), (1, 1, 1)], [(7, 3), (4, 1)]
    assert batch_work(pairs, packed=True).tokens == 5 + 2
    assert batch_work(pairs, packed=False) == TokenWork(4 * 5, 4 * 25, 3 + 2)
    assert batch_work(texts, packed=True).tokens == 6 + 3
    assert batch_work(texts, packed=False) == TokenWork(2 * 7, 2 * 49, 4)
    shape = shape_of(GPTNeoXConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    assert not shape.supports_packing
    recipe, section = dpo_recipe(per_device_train_batch_size=2, gradient_accumulation_steps=1, num_train_epochs=2)
    assert estimate_training(shape, recipe, section, pairs, CPU).tokens == 2 * 4 * 5
    assert estimate_training(shape_of(tiny_llama()), recipe, section, pairs, CPU).tokens == 2 * 7


def test_rows_of_like_length_waste_less() -> None:
    rows = [(10, 5, 5)] * 8 + [(100, 50, 50)] * 8
    sums = {}
    for way in ("random", "length"):
        recipe, section = dpo_recipe(per_device_train_batch_size=4, gradient_accumulation_steps=1, batching=way)
        parts = micro_batches(rows, recipe, section, packed=False)
        assert sorted(row for part in parts for row in part) == sorted(rows)
        sums[way] = sum(batch_work(part, packed=False).tokens for part in parts)
    least = 2 * (8 * 15 + 8 * 150)
    assert least <= sums["length"] < sums["random"]


def test_the_common_prefix_of_all_prompts() -> None:
    """The prompt's last token precedes each response, so it is not shared; rows at the limit may be cut."""
    prompts = [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 9, 9], [9, 9, 9, 9, 9, 9]]
    rows = [(len(prompt), 2, 2) for prompt in prompts]
    assert common_prefix_length(prompts, rows, 8) == 2
    assert common_prefix_length(prompts, rows, 9) == 0
