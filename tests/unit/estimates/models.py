"""Models and recipes that the tests of estimates share: sizes worked out by hand or published by the makers."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from transformers import LlamaConfig, MixtralConfig, Qwen2MoeConfig, Qwen3MoeConfig

from preflow.config import Recipe
from preflow.config.training import DpoSettings
from preflow.estimates.flops import ModelShape, shape_of
from preflow.models.precision import Precision

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)
GPU = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)
LAUNCHES = Path(__file__).parents[3] / "infra" / "accelerate"
#: A tiny model of two layers, for every architecture.
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


def tiny_llama(**changes: Any) -> LlamaConfig:
    """A Llama of ``SIZES``: q and o are 32x32, k and v 32x16, the MLP's three matrices 32x48."""
    return LlamaConfig(**{**SIZES, **changes})


@cache
def smollm2() -> ModelShape:
    """SmolLM2-135M."""
    return shape_of(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True,
        )
    )  # fmt: skip


@cache
def llama_8b() -> ModelShape:
    """Llama-3-8B."""
    return shape_of(
        LlamaConfig(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
            num_key_value_heads=8, tie_word_embeddings=False,
        )
    )  # fmt: skip


def dpo_recipe(tuning: str = "lora", **section: Any) -> tuple[Recipe, DpoSettings]:
    """A DPO recipe and its section: 8 pairs a step in two micro-batches unless told otherwise."""
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, **section}
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": "m", "tuning": tuning, "dpo": settings})
    return recipe, cast(DpoSettings, recipe.dpo)
