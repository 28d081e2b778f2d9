"""How much arithmetic a model takes: sizes from its configuration alone, floating-point operations from token counts.

A matrix product of ``(n, k)`` and ``(k, m)`` is ``2 n k m`` operations. Norms, activations and softmax are left out:
they cost memory traffic, not arithmetic.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from preflow.errors import UnknownShapeError
from preflow.models.fast_layers import knows


@dataclass(frozen=True, slots=True)
class Shape:
    """A causal language model's sizes.

    Attributes:
        parameters: Of the whole model; tied weights count once.
        linear: Weights in the layers' matrices, which every token passes.
        wide: Summed inputs and outputs of those matrices; an adapter of rank r has ``r * wide`` numbers.
        largest: The largest of those matrices.
        layers: Number of layers.
        hidden: Width E.
        inner: Width of the MLP.
        attention: Query heads times head width.
        keys: Key heads times head width.
        heads: Query heads.
        vocabulary: Tokens V.
        lean: Whether its layers are of the kind that ``fast_layers.quicken`` knows.
    """

    parameters: int
    linear: int
    wide: int
    largest: int
    layers: int
    hidden: int
    inner: int
    attention: int
    keys: int
    heads: int
    vocabulary: int
    lean: bool = False


def shape_of(config: Any) -> Shape:
    """The sizes of a model, from its transformers configuration; no weight is made or loaded.

    Raises:
        UnknownShapeError: The model is no transformer of equal layers, or its class is not one of transformers' own.
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
    matrices = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(weight.numel() for weight in matrices),
        wide=sum(sum(weight.shape) for weight in matrices),
        largest=max(weight.numel() for weight in matrices),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=inner or 4 * text.hidden_size,
        attention=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        vocabulary=text.vocab_size,
        lean=knows(text),
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What a forward runs over.

    Attributes:
        tokens: Tokens through the layers, padding included.
        seen: Pairs of a query and a key whose score is computed.
        scored: Tokens projected to the vocabulary.
    """

    tokens: int
    seen: int
    scored: int

    def __add__(self, other: "Work") -> "Work":
        """Both together."""
        return Work(self.tokens + other.tokens, self.seen + other.seen, self.scored + other.scored)


def padded_batch(lengths: list[tuple[int, int, int]]) -> Work:
    """What TRL runs over for a batch of pairs of (prompt, chosen, rejected) tokens: all rows as long as the longest."""
    width = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    rows = 2 * len(lengths)
    return Work(rows * width, rows * width * width, rows * (width - 1))


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
