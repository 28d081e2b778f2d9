"""What a plan says, against sizes and counts worked out by hand, and against what a training really takes."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3nTextConfig, GPT2Config, LlamaConfig, MambaConfig, PreTrainedConfig
from trl.trainer.utils import add_fused_lm_head

from preflow.config import Launch, Recipe
from preflow.errors import UnknownShapeError
from preflow.estimates.flops import (
    Shape,
    Work,
    forward_flops,
    packed_pair,
    sequence,
    shape_of,
    training_flops,
)
from preflow.estimates.memory import peak_memory
from preflow.estimates.training import common_tokens, forecast, foreseen, work_of_batch
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.peak_memory import PeakMemory
from preflow.models.precision import Precision
from preflow.models.trl_forward import pack_pairs

SMOL = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip
LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip
CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)


@cache
def smol() -> Shape:
    return shape_of(SMOL)


@cache
def llama_8b() -> Shape:
    return shape_of(LLAMA_8B)


FSDP = Path(__file__).parents[3] / "infra" / "accelerate" / "fsdp.yaml"
CARD = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)


def test_sizes_of_known_models() -> None:
    """SmolLM2-135M has 134,515,008 parameters, Llama-3-8B 8,030,261,248 (their model cards)."""
    assert smol().parameters == 134_515_008
    assert llama_8b().parameters == 8_030_261_248
    assert smol().linear == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert smol().wide == 30 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    assert shape_of(GPT2Config()).parameters == 124_439_808


def test_adapter_sizes_are_pefts() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    peft = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert trained == 4 * shape_of(config).wide


def test_work_of_a_pair_by_hand() -> None:
    """P = 3, C = 2, R = 1: 2 + 2 + 1 tokens; the prompt sees 1 + 2, chosen 2 x (2 + 2), rejected 1 x (2 + 1)."""
    assert packed_pair(3, 2, 1) == Work(5, 3 + 8 + 3, 3)
    assert sequence(4, 2) == Work(3, 6, 2)


def test_operations_are_those_that_pytorch_counts() -> None:
    """PyTorch's own counter over a forward and backward of full weights, unpadded, all positions scored."""
    from torch.utils.flop_counter import FlopCounterMode

    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.randint(0, 96, (1, 20))).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    work = Work(20, 20 * 20, 20)
    assert forward_flops(shape_of(config), work) == pytest.approx(forward, rel=0.02)
    expected = training_flops(shape_of(config), work, head_products=2)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)


def recipe(**settings: Any) -> Recipe:
    section = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **settings}
    return Recipe.model_validate({"strategy": "dpo", "model_name": "m", "dpo": section})


def test_steps_and_tokens() -> None:
    """10 pairs, 8 a step: 2 steps an epoch, 6 in three."""
    given = recipe(num_train_epochs=3)
    assert given.dpo is not None
    seen = forecast(smol(), given, given.dpo, [(30, 10, 20)] * 10, CPU)
    assert (seen.rows, seen.steps, seen.tokens, seen.scored) == (10, 6, 3 * 590, 900)


@pytest.mark.parametrize("config", [MambaConfig(num_hidden_layers=2), Gemma3nTextConfig()], ids=lambda c: c.model_type)
def test_what_cannot_be_foreseen_is_said_and_trains_all_the_same(config: PreTrainedConfig) -> None:
    with pytest.raises(UnknownShapeError, match=f"'{config.model_type}' is no transformer of equal layers"):
        shape_of(config)
    model = SimpleNamespace(config=config)
    given = recipe()
    assert given.dpo is not None
    assert foreseen(model, given, given.dpo, [(10, 5, 5)], CPU) is None


def test_weights_of_8b_models_by_hand() -> None:
    """16 GB in bfloat16; in NF4 0.516 bytes per matrix weight and bfloat16 for the embeddings."""
    shape, plain = llama_8b(), recipe()
    assert plain.dpo is not None
    batch = Work(4000, 0, 2000)
    assert peak_memory(shape, plain, plain.dpo, batch, CARD).weights == 2 * 8_030_261_248
    small = plain.model_copy(update={"use_4bit": True})
    assert peak_memory(shape, small, plain.dpo, batch, CARD).weights == pytest.approx(5.7e9, rel=0.02)


def test_a_launch_that_shares_weights_out_by_hand() -> None:
    """8.03e9 float32 weights, as many gradients and two moments, over 8 cards: 4.0, 4.0 and 8.0 GB of each.

    Each card held all 32 GB before. With a pair a card and 2 accumulated, 16 of 40 pairs are a step: 3 steps.
    """
    root = Path(__file__).parents[3]
    shape, batch, card = llama_8b(), Work(100, 0, 50), replace(CARD, weights=torch.float32)
    seen = {}
    for name in ("ddp", "fsdp", "deepspeed-zero3"):
        launch = Launch(num_processes=8, config=str(root / "infra" / "accelerate" / f"{name}.yaml"))
        given = recipe(per_device_train_batch_size=1, gradient_accumulation_steps=2, optim="adamw_torch_fused")
        given = given.model_copy(update={"tuning": "full", "launch": launch})
        assert given.dpo is not None
        assert forecast(shape, given, given.dpo, [(30, 10, 20)] * 40, card).steps == 3
        seen[name] = peak_memory(shape, given, given.dpo, batch, card)
    for name in ("fsdp", "deepspeed-zero3"):
        parts = (seen[name].weights, seen[name].gradients, seen[name].optimizer, seen[name].whole)
        assert parts == pytest.approx((4.015e9, 4.015e9, 8.03e9, 32.12e9), rel=1e-3)
        assert seen[name].total == seen[name].whole
        # 2 of 32 layers of 218.1e6 weights, and 525e6 of embedding and as many of the head, in bfloat16
        assert seen[name].workspace == pytest.approx(2 * (2 * 218.1e6 + 1050.7e6), rel=1e-3)
    assert (seen["ddp"].weights, seen["ddp"].whole) == (4 * 8_030_261_248, 0)
    # its buckets hold all gradients once more; at the peak, the update of fused AdamW, nothing else is made
    assert seen["ddp"].workspace == 4 * 8_030_261_248


@pytest.mark.parametrize("rows", [2, 8])
def test_gradients_wait_where_a_token_budget_takes_a_step_in_several_forwards(rows: int) -> None:
    """8 pairs of 4,000 tokens at 16,000 a forward are two forwards, however the recipe writes 8; at 32,000 one.

    So many tokens keep more than the gradients take: the peak is before the update, where only waiting ones are there.
    """
    shape = llama_8b()
    held = {}
    for budget in (16_000, 32_000):
        given = recipe(
            per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows, max_tokens_per_batch=budget,
            optim="sgd",
        ).model_copy(update={"tuning": "full"})  # fmt: skip
        settings: Any = given.dpo
        held[budget] = forecast(shape, given, settings, [(2000, 1000, 1000)] * 8, CARD).memory.gradients
    assert held == {16_000: 4 * shape.parameters, 32_000: 0}


def test_peak_memory_is_what_was_taken() -> None:
    memory = PeakMemory(torch.device("cpu"))
    block = torch.ones(64 * 2**20 // 4)
    del block
    assert 60 * 2**20 < (memory.above_idle() or 0) < 120 * 2**20


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


@pytest.mark.parametrize("alike", [False, True], ids=["apart", "alike"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["steady", "dropout"])
@pytest.mark.parametrize("lean", [True, False], ids=["lean", "plain"])
def test_activations_are_what_autograd_keeps(lean: bool, dropout: float, autocast: bool, alike: bool) -> None:
    """Bytes that a packed forward saves for its backward, by PyTorch's own hooks, within 15 %.

    Prompts of 60 and 90 tokens are alike in their first 59 places or in none.
    """
    from tests.unit.models.architectures import forward

    config = LlamaConfig(
        vocab_size=512, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    if autocast:
        model.to(torch.bfloat16)
    adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=dropout)
    wrapped = get_peft_model(model.requires_grad_(False), adapter).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    pack_pairs(model)
    fuse_lora(wrapped)
    if lean:
        use_cpu_kernels(wrapped)
    lengths = [(60, 20, 30), (90, 40, 10)]
    rows = [
        dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ([token] * n for n in sizes), strict=True))
        for token, sizes in zip((5, 5 if alike else 6), lengths, strict=True)
    ]
    precision = replace(CPU, weights=torch.bfloat16, compute=torch.bfloat16) if autocast else CPU
    weights = {p.untyped_storage().data_ptr() for p in wrapped.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision.autocast():
        forward(wrapped, rows)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    given = recipe(lora_r=4, lora_dropout=dropout, disable_dropout=False)
    settings: Any = given.dpo
    work = work_of_batch(lengths, packed=True, common=59 if alike else 0)
    need = peak_memory(replace(shape_of(config), lean=lean), given, settings, work, precision).activations
    assert need == pytest.approx(measured, rel=0.15)


def test_rows_that_begin_alike_run_their_beginning_once() -> None:
    """Three pairs of 10 + 5 + 5 tokens (19 places), two a forward, begin with 7 tokens: 2 x 19 - 7, and 19."""
    given = recipe(per_device_train_batch_size=2, gradient_accumulation_steps=1)
    settings: Any = given.dpo
    rows = [(10, 5, 5)] * 3
    alone, alike = (forecast(smol(), given, settings, rows, CPU, common) for common in (0, 7))
    assert alone.tokens == 3 * 19
    assert alike.tokens == 3 * 19 - 7
    assert alike.training < alone.training
    assert alike.memory.activations < alone.memory.activations
    longest = settings.max_seq_length
    cut = [(longest - 5, 5, 5)] * 3
    assert forecast(smol(), given, settings, cut, CPU, 7).tokens == 3 * (longest + 4)


def test_a_beginning_that_all_prompts_share() -> None:
    """The prompt's last token stands before each response, so it is not shared; rows at the limit may be cut."""
    prompts = [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 9, 9], [9, 9, 9, 9, 9, 9]]
    rows = [(len(prompt), 2, 2) for prompt in prompts]
    assert common_tokens(prompts, rows, 8) == 2
    assert common_tokens(prompts, rows, 9) == 0
