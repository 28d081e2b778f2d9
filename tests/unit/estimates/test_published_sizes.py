"""Numbers of a plan, worked out here by hand or by those who make the models: nothing is copied from the code."""

from functools import cache
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from preflow.config import Recipe
from preflow.config.training import DpoSettings, TrainingSettings
from preflow.errors import ConfigError
from preflow.estimates.flops import Shape, Work, forward_flops, shape_of
from preflow.estimates.memory import peak_memory
from preflow.estimates.scoring import looks_work, proof_work, scoring_work
from preflow.estimates.training import Change, batches, forecast, nearest_that_fits, shortened, work_of_batch
from preflow.models.precision import Precision

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": Qwen2MoeConfig(
        **SIZES, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16, shared_expert_intermediate_size=24,
    ),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZES, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=16,
    ),
}  # fmt: skip
TARGETS: list[Any] = ["all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")]
CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)
CARD = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)


def recipe(tuning: str = "lora", **section: Any) -> tuple[Recipe, DpoSettings]:
    made = Recipe.model_validate({"strategy": "dpo", "model_name": "m", "tuning": tuning, "dpo": section})
    return made, cast(DpoSettings, made.dpo)


def test_a_tiny_llama_by_hand() -> None:
    """Per layer: q and o 32x32, k and v 32x16, three MLP matrices 32x48, two norms of 32. Head and embedding apart."""
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    shape = shape_of(LlamaConfig(**SIZES, tie_word_embeddings=False))
    assert shape.parameters == 2 * (layer + 2 * 32) + 32 + 2 * 96 * 32
    assert (shape.linear, shape.matrices, shape.quantizable) == (2 * layer,) * 3
    assert shape_of(LlamaConfig(**SIZES, tie_word_embeddings=True)).parameters == shape.parameters - 96 * 32
    # 10 tokens see 55 pairs; 4 of them are scored: products of layers, scores and values of 32 numbers, the head
    expected = 2 * 2 * layer * 10 + 2 * (2 * 2 * 32 * 55) + 2 * 96 * 32 * 4
    assert forward_flops(shape, Work(10, 55, 4)) == expected


def test_bytes_of_a_tiny_llama_by_hand() -> None:
    """All weights: float32 weights, two float32 moments, and at the update, which is the peak here, the gradients.

    With two forwards a step gradients stay from one to the next. An adapter of rank 4 on q and v of two layers has
    4 x ((32 + 32) + (32 + 16)) x 2 numbers.
    """
    shape = shape_of(LlamaConfig(**SIZES, tie_word_embeddings=False))
    full, section = recipe("full", gradient_accumulation_steps=2)
    need = peak_memory(shape, full, section, Work(1, 1, 1), CPU)
    assert (need.weights, need.gradients, need.optimizer) == (
        4 * shape.parameters,
        4 * shape.parameters,
        8 * shape.parameters,
    )
    lora, section = recipe("lora", lora_r=4, lora_target_modules=("q_proj", "v_proj"), gradient_accumulation_steps=2)
    shape = shape_of(LlamaConfig(**SIZES, tie_word_embeddings=False), section.lora_target_modules)
    numbers = 4 * ((32 + 32) + (32 + 16)) * 2
    need = peak_memory(shape, lora, section, Work(100, 5050, 50), CPU)
    assert (need.adapter, need.gradients, need.optimizer) == (4 * numbers, 4 * numbers, 8 * numbers)


@pytest.mark.parametrize("config", EXPERTS.values(), ids=EXPERTS)
def test_experts_are_counted_whole_in_memory_and_by_their_share_in_arithmetic(config: PreTrainedConfig) -> None:
    """Parameters are those of the real model; operations those that PyTorch counts in a forward of 24 tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    shape = shape_of(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randint(0, 96, (1, 24)))
    assert forward_flops(shape, Work(24, 24 * 24, 24)) == pytest.approx(counter.get_total_flops(), rel=0.02)
    unchosen = shape.matrices - shape.linear
    assert unchosen > 0.3 * shape.matrices, "half or more of the experts see nothing of a token"


@pytest.mark.slow
def test_mixtral_has_the_sizes_of_its_card() -> None:
    """46.7e9 parameters, a token passes 12.9e9 (Jiang et al. 2024, arXiv:2401.04088), embeddings included."""
    shape = shape_of(MixtralConfig())
    assert shape.parameters == pytest.approx(46.7e9, rel=2e-3)
    assert shape.linear + 2 * 32000 * 4096 == pytest.approx(12.9e9, rel=2e-3)


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen2_moe"])
def test_an_adapter_follows_its_targets(kind: str, targets: Any) -> None:
    """As many numbers as PEFT trains on the real model."""
    config = LlamaConfig(**SIZES) if kind == "llama" else EXPERTS[kind]
    if kind == "mixtral" and "gate_proj" in targets:
        with pytest.raises(ConfigError, match="lora_target_modules"):
            shape_of(config, targets)
        return
    names = targets if isinstance(targets, str) else list(targets)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    peft = get_peft_model(model, LoraConfig(r=3, target_modules=names))
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert 3 * shape_of(config, targets).wide == trained


def test_padding_is_counted_for_models_that_need_it() -> None:
    """Pairs (3, 2, 1) and (1, 1, 1): packed 5 + 2 tokens; padded four rows of 5. Texts of 7 and 4: two of 7."""
    pairs, texts = [(3, 2, 1), (1, 1, 1)], [(7, 3), (4, 1)]
    assert work_of_batch(pairs, packed=True).tokens == 5 + 2
    assert work_of_batch(pairs, packed=False) == Work(4 * 5, 4 * 25, 3 + 2)
    assert work_of_batch(texts, packed=True).tokens == 6 + 3
    assert work_of_batch(texts, packed=False) == Work(2 * 7, 2 * 49, 4)
    shape = shape_of(GPTNeoXConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    assert not shape.packed
    made, section = recipe(per_device_train_batch_size=2, gradient_accumulation_steps=1, num_train_epochs=2)
    assert forecast(shape, made, section, pairs, CPU).tokens == 2 * 4 * 5
    assert forecast(shape_of(LlamaConfig(**SIZES)), made, section, pairs, CPU).tokens == 2 * 7


def test_rows_of_like_length_waste_less() -> None:
    rows = [(10, 5, 5)] * 8 + [(100, 50, 50)] * 8
    sums = {}
    for way in ("random", "length"):
        made, section = recipe(per_device_train_batch_size=4, gradient_accumulation_steps=1, batching=way)
        parts = batches(rows, made, section, packed=False)
        assert sorted(row for part in parts for row in part) == sorted(rows)
        sums[way] = sum(work_of_batch(part, packed=False).tokens for part in parts)
    least = 2 * (8 * 15 + 8 * 150)
    assert least <= sums["length"] < sums["random"]


def test_what_runs_beside_the_training_by_hand() -> None:
    """Two pairs (3, 2, 1), one of them in the sample; one held-out pair, looked at before and after each of 2 steps.

    Packed 5 tokens a pair, 3 scored. The plain way runs and projects 5 + 4 tokens, for the base too after SFT. The
    looks' logits run 3 + 2 tokens and project 2 + 1.
    """
    made, section = recipe(proof_sample=1, eval_pairs=1, eval_steps=1)
    proof = proof_work(made, section, [(3, 2, 1)] * 2, packed=True)
    assert (proof.tokens, proof.scored) == (2 * 5 + 9, 2 * 3 + (2 + 1) + (1 + 1))
    assert proof_work(made, section, [(3, 2, 1)] * 2, packed=True, common=2).tokens == proof.tokens - 2
    after = Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {"proof_sample": 1}})
    assert proof_work(after, section, [(3, 2, 1)] * 2, packed=True).tokens == 2 * 5 + 2 * 9
    looks = looks_work(section, 2, [(3, 2, 1)], packed=True)
    assert (looks.tokens, looks.scored) == (3 * 5 + 2 * 5, 3 * 3 + 2 * 3)
    assert looks_work(section.model_copy(update={"eval_pairs": 0}), 2, [(3, 2, 1)], packed=True) == Work(0, 0, 0)


def test_scoring_without_packing_runs_a_prompt_for_each_response() -> None:
    assert [each.tokens for each in scoring_work([(3, 2, 1)], packed=False)] == [4 + 3]
    assert [each.tokens for each in scoring_work([(3, 2, 1)], packed=True)] == [5]


def test_a_shorter_limit_cuts_prompts_and_sets_long_responses_aside() -> None:
    assert shortened((10, 4, 2), 20) == (10, 4, 2)
    assert shortened((10, 4, 2), 8) == (4, 4, 2)
    assert shortened((10, 8, 2), 8) is None
    assert (shortened((10, 4), 8), shortened((10, 8), 8)) == ((8, 4), None)


KINDS = {
    "8b": LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False,
    ),
    "moe": EXPERTS["qwen3_moe"],
}  # fmt: skip


@cache
def shape_called(kind: str) -> Shape:
    return shape_of(KINDS[kind])


ROWS = [(1800, 150, 200), (600, 200, 100), (90, 30, 20)] * 12


def changed(made: Recipe, section: TrainingSettings, change: Change) -> tuple[Recipe, TrainingSettings]:
    top = {name: value for name, value in change.settings.items() if name in ("tuning", "use_4bit")}
    own = {name: value for name, value in change.settings.items() if name not in top}
    return made.model_copy(update=top), section.model_copy(update=own)


def needed(kind: str, made: Recipe, section: TrainingSettings, rows: Any, device: Precision) -> float:
    held = Precision(device.device, torch.float32 if made.tuning == "full" else device.compute, device.compute)
    return forecast(shape_called(kind), made, section, rows, held).memory.total


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)), tuning=st.sampled_from(["lora", "full"]), share=st.floats(0.0, 1.2),
    batch=st.integers(1, 9), device=st.sampled_from([CPU, CARD]), budget=st.sampled_from([None, 4096]),
)  # fmt: skip
def test_what_is_said_to_fit_fits_and_something_is_said_where_anything_does(
    kind: str, tuning: str, share: float, batch: int, device: Precision, budget: int | None
) -> None:
    """Rooms between nothing and more than the recipe takes. The smallest: all that can be lowered, lowered."""
    made, section = recipe(tuning, per_device_train_batch_size=batch, max_seq_length=2048, max_tokens_per_batch=budget)
    least: dict[str, Any] = {"optim": "paged_adamw_8bit", "gradient_checkpointing": True, "max_seq_length": 128}
    least |= {"max_tokens_per_batch": 16} if budget else {}
    least |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2 * batch} if not budget else {}
    smallest, tiny = made.model_copy(update={"tuning": "lora", "use_4bit": True}), section.model_copy(update=least)
    floor = needed(kind, smallest, tiny, [row for each in ROWS if (row := shortened(each, 128))], device)
    room = share * needed(kind, made, section, ROWS, device)
    change = nearest_that_fits(shape_called(kind), made, section, ROWS, device, room)
    if change is None:
        assert floor > room
        return
    given_recipe, given_section = changed(made, section, change)
    kept = [row for each in ROWS if (row := shortened(each, given_section.max_seq_length))]
    assert needed(kind, given_recipe, given_section, kept, device) <= room
    assert len(ROWS) - len(kept) == change.dropped
    if "per_device_train_batch_size" in change.settings:
        assert given_section.per_device_train_batch_size * given_section.gradient_accumulation_steps == 2 * batch


def test_an_8b_model_with_all_weights_is_led_to_qlora_on_16_gb() -> None:
    """And rows are only cut where nothing else helps; then it is said how many."""
    made, section = recipe("full", max_seq_length=2048)
    full = Precision(CARD.device, torch.float32, torch.bfloat16)
    change: Any = nearest_that_fits(shape_called("8b"), made, section, ROWS, full, 16e9 * 0.92)
    assert change.settings["tuning"] == "lora"
    assert change.settings["use_4bit"] is True
    assert "max_seq_length" not in change.settings
    assert "tuning: lora" in str(change)
    smallest = section.model_copy(
        update={
            "optim": "paged_adamw_8bit", "gradient_checkpointing": True, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
        }
    )  # fmt: skip
    room = needed("8b", made.model_copy(update={"tuning": "lora", "use_4bit": True}), smallest, ROWS, CARD) - 1
    cut: Any = nearest_that_fits(shape_called("8b"), made, section, ROWS, full, room)
    assert cut.cut > 0
    assert f"cuts the prompts of {cut.cut} rows" in str(cut)
