"""A model's sizes from its configuration alone, and floating-point operations from token counts.

A matrix product of ``(n, k)`` and ``(k, m)`` is ``2 n k m`` operations. Norms, activations and softmax are left out:
they cost memory traffic, not arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from preflow.errors import ConfigError, UnknownShapeError
from preflow.models.loading import LanguageModel
from preflow.models.packed.support import all_layers_have_cpu_kernels, unsupported_reason

#: A Llama layer's matrices: query, key, value, output, gate, up, down.
_LLAMA_MATRICES = 7


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A causal language model's sizes; weights, widths and counts are numbers, not bytes.

    Attributes:
        parameters: Of the whole model, all experts included; tied weights count once.
        active_weights: Weights in the layers' matrices that a token passes: of experts, those that it is routed to.
        matrix_weights: Weights in the layers' matrices, all experts included.
        quantizable_weights: Weights in the layers' plain matrices, which 4-bit loading packs; experts it leaves alone.
        largest_matrix: Weights of the largest plain matrix.
        adapter_width: Summed inputs and outputs of the adapted matrices; an adapter of rank r has ``r`` times as many
            weights.
        adapted_modules: Number of adapted matrices.
        adapter_inputs: Their summed inputs.
        layers: Number of layers.
        hidden: Width E of the residual stream.
        mlp_width: Inner width of the MLP; of experts, of all that a token is routed to.
        experts_per_token: Experts that a token is routed to; 0 for a dense model.
        query_width: Query heads times head width.
        key_width: Key heads times head width.
        heads: Query heads.
        vocabulary: Tokens V.
        has_cpu_kernels: Whether the CPU kernels (``models/cpu/llama_layers.py``) compute its layers.
        supports_packing: Whether several rows run packed, without padding (``models/packed``).
    """

    parameters: int
    active_weights: int
    matrix_weights: int
    quantizable_weights: int
    largest_matrix: int
    adapter_width: int
    adapted_modules: int
    adapter_inputs: int
    layers: int
    hidden: int
    mlp_width: int
    experts_per_token: int
    query_width: int
    key_width: int
    heads: int
    vocabulary: int
    has_cpu_kernels: bool = False
    supports_packing: bool = True

    @property
    def adapts_whole_llama_layers(self) -> bool:
        """Whether every matrix of a Llama-like layer has an adapter."""
        return self.adapted_modules == _LLAMA_MATRICES * self.layers


def shape_of(config: Any, targets: str | Sequence[str] = "all-linear") -> ModelShape:
    """The sizes of a model, from its transformers configuration; no weight is made or loaded.

    They are read off the modules that transformers builds on the meta device, and off the adapter that PEFT injects.

    Args:
        config: The model's.
        targets: Modules that get an adapter, by PEFT's names.

    Raises:
        UnknownShapeError: The model is no transformer of equal layers, or its class is not one of transformers' own.
        ConfigError: PEFT finds no module that ``targets`` names.
    """
    text = config.get_text_config()
    model, inner = _without_weights(config)
    head = model.get_output_embeddings()
    plain = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    banks, routers = _experts(model)
    chosen = _experts_per_token(text) if banks else 0
    active = sum(bank.numel() * chosen // len(bank) for bank in banks)
    active_weights = sum(plain) + active + routers
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    if banks:  # gate, up and down projection of each expert, shared experts included
        around_attention = 2 * text.num_hidden_layers * text.hidden_size * width * (heads + keys)
        inner = (active_weights - around_attention) // (3 * text.num_hidden_layers * text.hidden_size)
    parameters, packed = sum(p.numel() for p in model.parameters()), unsupported_reason(model) is None
    adapter_width, adapted_modules, adapter_inputs = _adapter(model, targets)
    return ModelShape(
        parameters=parameters,
        active_weights=active_weights,
        matrix_weights=sum(plain) + sum(bank.numel() for bank in banks) + routers,
        quantizable_weights=sum(plain),
        largest_matrix=max(plain),
        adapter_width=adapter_width,
        adapted_modules=adapted_modules,
        adapter_inputs=adapter_inputs,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        mlp_width=inner or 4 * text.hidden_size,
        experts_per_token=chosen,
        query_width=heads * width,
        key_width=keys * width,
        heads=heads,
        vocabulary=text.vocab_size,
        has_cpu_kernels=all_layers_have_cpu_kernels(text),
        supports_packing=packed,
    )


def _without_weights(config: Any) -> tuple[LanguageModel, int | None]:
    """The model's modules on the meta device, and the inner width of its MLP where the configuration names it."""
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    if not isinstance(getattr(text, "num_attention_heads", None), int) or not isinstance(inner or 0, int):
        raise UnknownShapeError(
            f"architecture {config.model_type!r} is no transformer of equal layers: its memory and operations cannot "
            "be estimated"
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config), inner  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnknownShapeError(
            f"architecture {config.model_type!r} is no causal language model of transformers' own: {error}"
        ) from error


def _experts(model: LanguageModel) -> tuple[list[torch.Tensor], int]:
    """Matrices of all experts, stacked in three dimensions, and the number of the routers' weights."""
    banks, routers = [], 0
    for module in model.modules():
        kind = type(module).__name__
        own = dict(module.named_parameters(recurse=False))
        if kind.endswith("Experts"):
            banks += [weight for weight in own.values() if weight.dim() == 3]
        elif kind.lower().endswith("router") and not isinstance(module, torch.nn.Linear):
            routers += sum(weight.numel() for weight in own.values() if weight.dim() == 2)
    return banks, routers


def _experts_per_token(text: Any) -> int:
    chosen = getattr(text, "num_experts_per_tok", None)
    if not isinstance(chosen, int):
        raise UnknownShapeError(
            f"architecture {text.model_type!r} has experts, but its configuration has no num_experts_per_tok: its "
            "operations cannot be estimated"
        )
    return chosen


def _adapter(model: LanguageModel, targets: str | Sequence[str]) -> tuple[int, int, int]:
    """Weights of an adapter of rank 1, its modules and their summed inputs, counted by PEFT; changes the model."""
    from peft import LoraConfig, inject_adapter_in_model

    names = targets if isinstance(targets, str) else list(targets)
    try:
        with torch.device("meta"):
            inject_adapter_in_model(LoraConfig(r=1, target_modules=names), model)
    except ValueError as error:
        raise ConfigError(f"lora_target_modules is {names!r}, which PEFT refuses for this model: {error}") from error
    sizes = {name: p.numel() for name, p in model.named_parameters() if "lora_" in name}
    inputs = sum(size for name, size in sizes.items() if "lora_A" in name)
    return sum(sizes.values()), len(sizes) // 2, inputs


@dataclass(frozen=True, slots=True)
class TokenWork:
    """Token counts of a forward, which decide its operations and activations.

    Attributes:
        tokens: Tokens through the layers, padding included.
        attended: Query-key pairs whose attention score is computed.
        head_positions: lm_head positions, whose logits are computed.
        copied: Tokens that attention on a CPU copies because several rows share them as a prefix.
    """

    tokens: int
    attended: int
    head_positions: int
    copied: int = 0

    def __add__(self, other: "TokenWork") -> "TokenWork":
        """Both together."""
        attended, copied = self.attended + other.attended, self.copied + other.copied
        return TokenWork(self.tokens + other.tokens, attended, self.head_positions + other.head_positions, copied)

    def with_common_prefix(self, rows: int, length: int) -> "TokenWork":
        """The same where so many rows share their first ``length`` tokens, which then run once."""
        saved = (rows - 1) * length
        return replace(self, tokens=self.tokens - saved, copied=self.copied + saved)


def packed_pair(prompt: int, chosen: int, rejected: int) -> TokenWork:
    """A pair without padding, its prompt run once."""
    shared = prompt - 1
    attended = shared * (shared + 1) // 2 + chosen * (shared + chosen) + rejected * (shared + rejected)
    return TokenWork(shared + chosen + rejected, attended, chosen + rejected)


def sequence(length: int, head_positions: int) -> TokenWork:
    """One sequence without padding; its last token need not be run."""
    return TokenWork(length - 1, length * (length - 1) // 2, head_positions)


def forward_flops(shape: ModelShape, work: TokenWork, rank: int = 0) -> float:
    """Floating-point operations of one forward, with an adapter of some rank (0: none)."""
    layers = 2.0 * (shape.active_weights + rank * shape.adapter_width) * work.tokens
    attention = 4.0 * shape.layers * shape.query_width * work.attended
    return layers + attention + 2.0 * shape.vocabulary * shape.hidden * work.head_positions


def training_flops(
    shape: ModelShape, work: TokenWork, rank: int = 0, *, head_products: int = 1, recompute: bool = False
) -> float:
    """Floating-point operations of a forward and its backward.

    Args:
        shape: The model's sizes.
        work: The batch's token counts.
        rank: Of the adapter; 0 trains all weights, whose gradients cost one more product each.
        head_products: Matrix products of the head's backward: 1 where the forward ends the gradient, 2 where logits are
            computed again, one more where the head trains.
        recompute: Whether the backward computes the activations again.
    """
    layers = 2.0 * shape.active_weights * work.tokens * (1 if rank else 2)
    layers += 4.0 * rank * shape.adapter_width * work.tokens
    attention = 8.0 * shape.layers * shape.query_width * work.attended
    head = 2.0 * shape.vocabulary * shape.hidden * work.head_positions * head_products
    again = forward_flops(shape, TokenWork(work.tokens, work.attended, 0), rank) if recompute else 0.0
    return forward_flops(shape, work, rank) + layers + attention + head + again
