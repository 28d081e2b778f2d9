"""Peak memory against bytes counted by hand and what autograd keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
from trl.trainer.utils import add_fused_lm_head

from preflow.config import Launch
from preflow.estimates.flops import TokenWork, shape_of
from preflow.estimates.memory import peak_memory
from preflow.estimates.training import estimate_training
from preflow.estimates.workload import batch_work
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.peak_memory import PeakMemory
from preflow.models.trl_forward import pack_pairs
from tests.unit.estimates.models import CPU, GPU, LAUNCHES, dpo_recipe, llama_8b, tiny_llama


def test_bytes_of_a_tiny_llama_by_hand() -> None:
    """All weights: float32 weights, two float32 moments, and at the update, which is the peak here, the gradients.

    With two forwards a step gradients stay from one to the next. An adapter of rank 4 on q and v of two layers has
    4 x ((32 + 32) + (32 + 16)) x 2 numbers.
    """
    shape = shape_of(tiny_llama(tie_word_embeddings=False))
    full, section = dpo_recipe("full", gradient_accumulation_steps=2)
    need = peak_memory(shape, full, section, TokenWork(1, 1, 1), CPU)
    assert (need.weights, need.gradients, need.optimizer) == (
        4 * shape.parameters,
        4 * shape.parameters,
        8 * shape.parameters,
    )
    targets = ("q_proj", "v_proj")
    lora, section = dpo_recipe("lora", lora_r=4, lora_target_modules=targets, gradient_accumulation_steps=2)
    shape = shape_of(tiny_llama(tie_word_embeddings=False), section.lora_target_modules)
    numbers = 4 * ((32 + 32) + (32 + 16)) * 2
    need = peak_memory(shape, lora, section, TokenWork(100, 5050, 50), CPU)
    assert (need.adapter, need.gradients, need.optimizer) == (4 * numbers, 4 * numbers, 8 * numbers)


def test_training_all_weights_adds_their_gradients_and_moments_by_hand() -> None:
    """At the update of a fused AdamW nothing else is left: 4 bytes of gradient and 8 of moments per parameter."""
    one_each = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    recipe, section = dpo_recipe("full", **one_each, optim="adamw_torch_fused")
    need = peak_memory(llama_8b(), recipe, section, TokenWork(100, 0, 50), GPU)
    assert need.tensors == (4 + 8) * 8_030_261_248
    assert need.total == (2 + 4 + 8) * 8_030_261_248  # and the weights in bfloat16


def test_weights_of_8b_models_by_hand() -> None:
    """16 GB in bfloat16; in NF4 0.516 bytes per matrix weight and bfloat16 for the embeddings."""
    shape, (plain, section) = llama_8b(), dpo_recipe()
    batch = TokenWork(4000, 0, 2000)
    assert peak_memory(shape, plain, section, batch, GPU).weights == 2 * 8_030_261_248
    small = plain.model_copy(update={"use_4bit": True})
    assert peak_memory(shape, small, section, batch, GPU).weights == pytest.approx(5.7e9, rel=0.02)


def test_a_launch_that_shards_weights_by_hand() -> None:
    """8.03e9 float32 weights, as many gradients and two moments, over 8 GPUs: 4.0, 4.0 and 8.0 GB of each.

    Each GPU loads all 32 GB first. With a pair on each GPU and 2 accumulated, 16 of 40 pairs are a step: 3 steps.
    """
    shape, batch, gpu = llama_8b(), TokenWork(100, 0, 50), replace(GPU, weights=torch.float32)
    peaks = {}
    for name in ("ddp", "fsdp", "deepspeed-zero3"):
        launch = Launch(num_processes=8, config=str(LAUNCHES / f"{name}.yaml"))
        one_each = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
        recipe, section = dpo_recipe("full", **one_each, optim="adamw_torch_fused")
        recipe = recipe.model_copy(update={"launch": launch})
        assert estimate_training(shape, recipe, section, [(30, 10, 20)] * 40, gpu).steps == 3
        peaks[name] = peak_memory(shape, recipe, section, batch, gpu)
    for name in ("fsdp", "deepspeed-zero3"):
        parts = (peaks[name].weights, peaks[name].gradients, peaks[name].optimizer, peaks[name].full_weights)
        assert parts == pytest.approx((4.015e9, 4.015e9, 8.03e9, 32.12e9), rel=1e-3)
        assert peaks[name].total == peaks[name].full_weights
        # 2 of 32 layers of 218.1e6 weights, and 525e6 of embedding and as many of the head, in bfloat16
        assert peaks[name].workspace == pytest.approx(2 * (2 * 218.1e6 + 1050.7e6), rel=1e-3)
    assert (peaks["ddp"].weights, peaks["ddp"].full_weights) == (4 * 8_030_261_248, 0)
    # its buckets hold all gradients once more; at the peak, the update of fused AdamW, nothing else is made
    assert peaks["ddp"].workspace == 4 * 8_030_261_248


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared_prefix"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["steady", "dropout"])
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "plain"])
def test_activations_are_what_autograd_keeps(kernels: bool, dropout: float, autocast: bool, shared: bool) -> None:
    """Bytes that a packed forward saves for its backward, by PyTorch's own hooks, within 15 %.

    Prompts of 60 and 90 tokens share their first 59 tokens or none.
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
    if kernels:
        use_cpu_kernels(wrapped)
    lengths = [(60, 20, 30), (90, 40, 10)]
    rows = [
        dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ([token] * n for n in sizes), strict=True))
        for token, sizes in zip((5, 5 if shared else 6), lengths, strict=True)
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
    recipe, section = dpo_recipe(lora_r=4, lora_dropout=dropout, disable_dropout=False)
    work = batch_work(lengths, packed=True, common=59 if shared else 0)
    need = peak_memory(replace(shape_of(config), has_cpu_kernels=kernels), recipe, section, work, precision).activations
    assert need == pytest.approx(measured, rel=0.15)


def test_peak_memory_is_what_was_taken() -> None:
    memory = PeakMemory(torch.device("cpu"))
    block = torch.ones(64 * 2**20 // 4)
    del block
    assert 60 * 2**20 < (memory.above_idle() or 0) < 120 * 2**20
