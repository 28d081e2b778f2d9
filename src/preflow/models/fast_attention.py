"""Rotary embedding and attention for a row of several pairs on the CPU, in one function with a backward of its own.

Beside ``preflow.models.attention``, which scores and whose bits stored values depend on, this keeps no repeated heads
and no copies of prompts for the backward, and makes its masks by slicing one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from preflow.models.layout import Layout

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def rotary_attention(
    query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, layout: Layout, scale: float
) -> Tensor:
    """Attention in a row of N tokens, after its queries and keys are turned by their positions.

    Args:
        query: Shape ``(N, H, D)``.
        key: Shape ``(N, G, D)``; G divides H.
        value: Shape ``(N, G, D)``.
        cos: Shape ``(N, D)``, both halves the same; without gradient, as ``sin``.
        sin: Shape ``(N, D)``.
        layout: Who sees whom.
        scale: Of the scores.

    Returns:
        Shape ``(N, H, D)``.
    """
    out: Tensor = _RotaryAttention.apply(query, key, value, cos, sin, layout, scale)  # type: ignore[no-untyped-call]
    return out


class _RotaryAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, layout: Layout, scale: float
    ) -> Tensor:
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        masks, apart = _masks(layout.apart, query), _spread(layout, query, key, value)
        out, sums = torch.empty_like(apart[0]), query.new_empty(apart[0].shape[:2])
        for own, prompt in _parts(layout.apart):
            given = _given(apart, own, prompt)
            result, log_sums = _FLASH(*given, 0.0, prompt is None, attn_mask=_mask(masks, own, prompt), scale=scale)
            out[own], sums[own] = result[0].transpose(0, 1), log_sums[0].t()
        if layout.common:
            out, sums = out[layout.kept], sums[layout.kept]
        ctx.save_for_backward(query, key, value, cos, sin, masks, out, sums)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *rows, cos, sin, masks, out, sums = ctx.saved_tensors
        layout: Layout = ctx.layout
        *apart, out, sums = _spread(layout, *rows, out, sums)
        if layout.common:  # further copies of a common token give no result, so nothing reaches back through them
            grad = torch.zeros_like(out).index_copy_(0, layout.kept, grad)
        grad_query, grad_key, grad_value = torch.empty_like(apart[0]), *map(torch.zeros_like, apart[1:])
        for own, prompt in _parts(layout.apart):
            results = (_heads(out[own]), sums[own].t()[None])
            mask = _mask(masks, own, prompt)
            of_query, *of_seen = _FLASH_BACKWARD(
                _heads(grad[own]), *_given(apart, own, prompt), *results, 0.0, prompt is None, attn_mask=mask,
                scale=ctx.scale,
            )  # fmt: skip
            grad_query[own] = of_query[0].transpose(0, 1)
            for total, part in zip((grad_key, grad_value), of_seen, strict=True):
                seen = part[0].transpose(0, 1)
                total[own] += seen[len(seen) - (own.stop - own.start) :]
                if prompt is not None:
                    total[prompt] += seen[: prompt.stop - prompt.start]
        grad_query, grad_key, grad_value = (_together(layout, each) for each in (grad_query, grad_key, grad_value))
        turned = _turned(grad_query, cos, -sin), _turned(grad_key, cos, -sin)  # a rotation's transpose turns back
        return *turned, grad_value, None, None, None, None


def _spread(layout: Layout, *rows: Tensor) -> list[Tensor]:
    """Rows ``(N, ..)`` with common tokens copied to each group, ``(M, ..)``; as they are where there are none."""
    return [each[layout.spread] for each in rows] if layout.common else list(rows)


def _together(layout: Layout, rows: Tensor) -> Tensor:
    """The sum over all copies of each token: ``(M, ..)`` to ``(N, ..)``."""
    if not layout.common:
        return rows
    groups = rows.split(layout.apart.lengths)  # type: ignore[no-untyped-call]
    return torch.cat([sum(group[: layout.common] for group in groups), *(group[layout.common :] for group in groups)])


def _given(rows: Sequence[Tensor], own: slice, prompt: slice | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of a part, and keys and values of what it sees, as attention wants them."""
    query, key, value = rows
    return _heads(query[own]), _heads(_seen(key, own, prompt)), _heads(_seen(value, own, prompt))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions ``(d, d + D/2)`` of ``x (N, H, D)`` by its angle."""
    half = x.shape[-1] // 2
    sin = sin[:, None, :half]
    out = x * cos[:, None]
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


def _parts(layout: Layout) -> Iterator[tuple[slice, slice | None]]:
    """Places of every part that has tokens, and of the prompt before it; None where it is a prompt itself."""
    start, prompt = 0, slice(0, 0)
    for size, is_prompt in zip(layout.parts, layout.is_prompt, strict=True):
        own = slice(start, start + size)
        start += size
        if is_prompt:
            prompt = own
        if size:
            yield own, None if is_prompt else prompt


def _heads(rows: Tensor) -> Tensor:
    """``(n, H, D)`` as attention wants it: ``(1, H, n, D)``."""
    return rows.transpose(0, 1)[None]


def _seen(rows: Tensor, own: slice, prompt: slice | None) -> Tensor:
    return rows[own] if prompt is None else torch.cat((rows[prompt], rows[own]))


def _masks(layout: Layout, like: Tensor) -> Tensor:
    """A mask of which every response's own is a slice: row i sees the columns up to ``i + (longest prompt)``."""
    parts = list(zip(layout.parts, layout.is_prompt, strict=True))
    prompt = max((size for size, is_prompt in parts if is_prompt), default=0)
    response = max((size for size, is_prompt in parts if not is_prompt), default=0)
    return like.new_full((response, prompt + response), -torch.inf).triu_(prompt + 1)


def _mask(masks: Tensor, own: slice, prompt: slice | None) -> Tensor | None:
    """For n queries over a prompt of P tokens and themselves: 0 where visible, else -inf, shape ``(n, P + n)``."""
    if prompt is None:
        return None
    queries, longest = own.stop - own.start, masks.shape[1] - masks.shape[0]
    return masks[:queries, longest - (prompt.stop - prompt.start) : longest + queries]
