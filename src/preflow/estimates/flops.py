"""How much arithmetic a model takes: sizes from its configuration alone, floating-point operations from token counts.

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


@dataclass(frozen=True, slots=True)
class Shape:
    """A causal language model's sizes.

    Attributes:
        parameters: Of the whole model, all experts included; tied weights count once.
        linear: Weights in the layers' matrices that a token passes: of experts, those that it is sent to.
        matrices: Weights in the layers' matrices, all experts included.
        quantizable: Weights in the layers' plain matrices, which 4-bit loading packs; experts it leaves as they are.
        largest: The largest of the plain matrices.
        wide: Summed inputs and outputs of the matrices that get an adapter; one of rank r has ``r * wide`` numbers.
        adapted: How many matrices those are.
        read: Their summed inputs.
        layers: Number of layers.
        hidden: Width E.
        inner: Width of the MLP; of experts, of all that a token is sent to.
        experts: Experts that a token is sent to; 0 without any.
        attention: Query heads times head width.
        keys: Key heads times head width.
        heads: Query heads.
        vocabulary: Tokens V.
        lean: Whether its layers are of the kind that ``fast_layers.use_cpu_kernels`` knows.
        packed: Whether several of its rows run as one without padding (``support.unsupported_reason``).
    """

    parameters: int
    linear: int
    matrices: int
    quantizable: int
    largest: int
    wide: int
    adapted: int
    read: int
    layers: int
    hidden: int
    inner: int
    experts: int
    attention: int
    keys: int
    heads: int
    vocabulary: int
    lean: bool = False
    packed: bool = True


def shape_of(config: Any, targets: str | Sequence[str] = "all-linear") -> Shape:
    """The sizes of a model, from its transformers configuration; no weight is made or loaded.

    They are read off the modules that transformers builds without memory, and off the adapter that PEFT puts on them.

    Args:
        config: The model's.
        targets: Modules that get an adapter, by PEFT's names.

    Raises:
        UnknownShapeError: The model is no transformer of equal layers, or its class is not one of transformers' own.
        ConfigError: No module is called as ``targets`` says.
    """
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    if not isinstance(getattr(text, "num_attention_heads", None), int) or not isinstance(inner or 0, int):
        raise UnknownShapeError(
            f"architecture {config.model_type!r} is no transformer of equal layers: what it takes cannot be foreseen"
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnknownShapeError(
            f"architecture {config.model_type!r} is no causal language model of transformers' own: {error}"
        ) from error
    head = model.get_output_embeddings()
    plain = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    banks, routers = _experts(model)
    chosen = _experts_per_token(text) if banks else 0
    active = sum(bank.numel() * chosen // len(bank) for bank in banks)
    linear = sum(plain) + active + routers
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    if banks:  # gate, upper half and product's projection of each expert, and of those that every token passes
        around_attention = 2 * text.num_hidden_layers * text.hidden_size * width * (heads + keys)
        inner = (linear - around_attention) // (3 * text.num_hidden_layers * text.hidden_size)
    parameters, packed = sum(p.numel() for p in model.parameters()), unsupported_reason(model) is None
    wide, adapted, read = _adapter(model, targets)
    return Shape(
        parameters=parameters,
        linear=linear,
        matrices=sum(plain) + sum(bank.numel() for bank in banks) + routers,
        quantizable=sum(plain),
        largest=max(plain),
        wide=wide,
        adapted=adapted,
        read=read,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=inner or 4 * text.hidden_size,
        experts=chosen,
        attention=heads * width,
        keys=keys * width,
        heads=heads,
        vocabulary=text.vocab_size,
        lean=all_layers_have_cpu_kernels(text),
        packed=packed,
    )


def _experts(model: LanguageModel) -> tuple[list[torch.Tensor], int]:
    """Matrices of all experts, one above another in three dimensions, and the weights that choose among them."""
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
            f"architecture {text.model_type!r} has experts, but its configuration has no num_experts_per_tok: what a "
            "token takes cannot be foreseen"
        )
    return chosen


def _adapter(model: LanguageModel, targets: str | Sequence[str]) -> tuple[int, int, int]:
    """Numbers of an adapter of rank 1, matrices that get it and their inputs, by PEFT itself; changes the model."""
    from peft import LoraConfig, inject_adapter_in_model

    names = targets if isinstance(targets, str) else list(targets)
    try:
        with torch.device("meta"):
            inject_adapter_in_model(LoraConfig(r=1, target_modules=names), model)
    except ValueError as error:
        raise ConfigError(f"lora_target_modules is {names!r}, which PEFT refuses for this model: {error}") from error
    narrow = {name: p.numel() for name, p in model.named_parameters() if "lora_" in name}
    read = sum(size for name, size in narrow.items() if "lora_A" in name)
    return sum(narrow.values()), len(narrow) // 2, read


@dataclass(frozen=True, slots=True)
class Work:
    """What a forward runs over.

    Attributes:
        tokens: Tokens through the layers, padding included.
        seen: Pairs of a query and a key whose score is computed.
        scored: Tokens projected to the vocabulary.
        copied: Tokens that attention on a CPU copies, since several rows begin with them.
    """

    tokens: int
    seen: int
    scored: int
    copied: int = 0

    def __add__(self, other: "Work") -> "Work":
        """Both together."""
        seen, copied = self.seen + other.seen, self.copied + other.copied
        return Work(self.tokens + other.tokens, seen, self.scored + other.scored, copied)

    def beginning_alike(self, rows: int, common: int) -> "Work":
        """The same where so many rows have their first ``common`` tokens together."""
        saved = (rows - 1) * common
        return replace(self, tokens=self.tokens - saved, copied=self.copied + saved)


def packed_pair(prompt: int, chosen: int, rejected: int) -> Work:
    """What a pair takes without padding, its prompt run once."""
    shared = prompt - 1
    seen = shared * (shared + 1) // 2 + chosen * (shared + chosen) + rejected * (shared + rejected)
    return Work(shared + chosen + rejected, seen, chosen + rejected)


def sequence(length: int, scored: int) -> Work:
    """What one sequence takes without padding; its last token need not be run."""
    return Work(length - 1, length * (length - 1) // 2, scored)


def forward_flops(shape: Shape, work: Work, rank: int = 0) -> float:
    """Of one forward, with an adapter of some rank."""
    layers = 2.0 * (shape.linear + rank * shape.wide) * work.tokens
    attention = 4.0 * shape.layers * shape.attention * work.seen
    return layers + attention + 2.0 * shape.vocabulary * shape.hidden * work.scored


def training_flops(
    shape: Shape, work: Work, rank: int = 0, *, head_products: int = 1, recompute: bool = False
) -> float:
    """Of a forward and its backward.

    Args:
        shape: The model.
        work: What it runs over.
        rank: Of the adapter; 0 trains all weights, whose gradients cost one more product each.
        head_products: Matrix products of the head's backward: 1 where the forward ends the gradient, 2 where logits are
            computed again, one more where the head trains.
        recompute: Whether the backward computes the activations again.
    """
    layers = 2.0 * shape.linear * work.tokens * (1 if rank else 2) + 4.0 * rank * shape.wide * work.tokens
    attention = 8.0 * shape.layers * shape.attention * work.seen
    head = 2.0 * shape.vocabulary * shape.hidden * work.scored * head_products
    again = forward_flops(shape, Work(work.tokens, work.seen, 0), rank) if recompute else 0.0
    return forward_flops(shape, work, rank) + layers + attention + head + again
