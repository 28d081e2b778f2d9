"""Sizes and operations against published models, PyTorch's own counter and sums by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3nTextConfig,
    GPT2Config,
    MambaConfig,
    MixtralConfig,
    PreTrainedConfig,
)

from preflow.errors import ConfigError, UnknownShapeError
from preflow.estimates.flops import TokenWork, forward_flops, packed_pair, sequence, shape_of, training_flops
from preflow.estimates.training import loaded_model_memory
from tests.unit.estimates.models import CPU, EXPERTS, dpo_recipe, llama_8b, smollm2, tiny_llama

TARGETS: list[Any] = ["all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")]


@pytest.mark.slow
def test_sizes_of_known_models() -> None:
    """SmolLM2-135M has 134,515,008 parameters, Llama-3-8B 8,030,261,248 (their model cards)."""
    assert smollm2().parameters == 134_515_008
    assert llama_8b().parameters == 8_030_261_248
    assert smollm2().active_weights == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert smollm2().adapter_width == 30 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    assert shape_of(GPT2Config()).parameters == 124_439_808


def test_a_tiny_llama_by_hand() -> None:
    """Per layer: q and o 32x32, k and v 32x16, three MLP matrices 32x48, two norms of 32. Head and embedding apart."""
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    shape = shape_of(tiny_llama(tie_word_embeddings=False))
    assert shape.parameters == 2 * (layer + 2 * 32) + 32 + 2 * 96 * 32
    assert (shape.active_weights, shape.matrix_weights, shape.quantizable_weights) == (2 * layer,) * 3
    assert shape_of(tiny_llama(tie_word_embeddings=True)).parameters == shape.parameters - 96 * 32
    # 10 tokens see 55 pairs; 4 of them are scored: products of layers, scores and values of 32 numbers, the head
    expected = 2 * 2 * layer * 10 + 2 * (2 * 2 * 32 * 55) + 2 * 96 * 32 * 4
    assert forward_flops(shape, TokenWork(10, 55, 4)) == expected


@pytest.mark.slow
def test_mixtral_has_the_sizes_of_its_card() -> None:
    """46.7e9 parameters, a token passes 12.9e9 (Jiang et al. 2024, arXiv:2401.04088), embeddings included."""
    shape = shape_of(MixtralConfig())
    assert shape.parameters == pytest.approx(46.7e9, rel=2e-3)
    assert shape.active_weights + 2 * 32000 * 4096 == pytest.approx(12.9e9, rel=2e-3)


def test_adapter_sizes_are_pefts() -> None:
    config = tiny_llama()
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    peft = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert trained == 4 * shape_of(config).adapter_width


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("architecture", ["llama", "mixtral", "qwen2_moe"])
def test_an_adapter_follows_its_targets(architecture: str, targets: Any) -> None:
    """As many numbers as PEFT trains on the real model."""
    config = tiny_llama() if architecture == "llama" else EXPERTS[architecture]
    if architecture == "mixtral" and "gate_proj" in targets:
        with pytest.raises(ConfigError, match="lora_target_modules"):
            shape_of(config, targets)
        return
    names = targets if isinstance(targets, str) else list(targets)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    peft = get_peft_model(model, LoraConfig(r=3, target_modules=names))
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert 3 * shape_of(config, targets).adapter_width == trained


def test_work_of_a_pair_by_hand() -> None:
    """P = 3, C = 2, R = 1: 2 + 2 + 1 tokens; the prompt sees 1 + 2, chosen 2 x (2 + 2), rejected 1 x (2 + 1)."""
    assert packed_pair(3, 2, 1) == TokenWork(5, 3 + 8 + 3, 3)
    assert sequence(4, 2) == TokenWork(3, 6, 2)


def test_operations_are_those_that_pytorch_counts() -> None:
    """PyTorch's own counter over a forward and backward of full weights, unpadded, all positions scored."""
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny_llama()
    config._attn_implementation = "eager"
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.randint(0, 96, (1, 20))).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    work = TokenWork(20, 20 * 20, 20)
    assert forward_flops(shape_of(config), work) == pytest.approx(forward, rel=0.02)
    expected = training_flops(shape_of(config), work, head_products=2)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)


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
    assert forward_flops(shape, TokenWork(24, 24 * 24, 24)) == pytest.approx(counter.get_total_flops(), rel=0.02)
    unchosen = shape.matrix_weights - shape.active_weights
    assert unchosen > 0.3 * shape.matrix_weights, "half or more of the experts see nothing of a token"


@pytest.mark.parametrize("config", [MambaConfig(num_hidden_layers=2), Gemma3nTextConfig()], ids=lambda c: c.model_type)
def test_an_unknown_architecture_has_no_estimate_and_trains_all_the_same(config: PreTrainedConfig) -> None:
    with pytest.raises(UnknownShapeError, match=f"'{config.model_type}' is no transformer of equal layers"):
        shape_of(config)
    model = SimpleNamespace(config=config)
    recipe, settings = dpo_recipe()
    assert loaded_model_memory(model, recipe, settings, [(10, 5, 5)], CPU) is None
