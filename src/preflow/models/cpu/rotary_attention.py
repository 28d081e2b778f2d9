"""Rotary embedding and attention for a row of several pairs on the CPU, in one function with a backward of its own.

Beside ``models/packed/attention.py``, which scores and whose bits stored values depend on, this keeps no repeated heads
and no copies of prompts for the backward, moves no token that stands where attention can read it, and makes its masks
by slicing one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preflow.models.cpu.operators import flash_attention, flash_attention_backward
from preflow.models.packed.layout import Layout


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


class _Part(NamedTuple):
    """Neighbouring tokens of a row that see the same others: places of theirs, and of those others, in order."""

    own: slice
    others: tuple[slice, ...]
    is_prompt: bool

    @property
    def others_size(self) -> int:
        return sum(each.stop - each.start for each in self.others)


class _RotaryAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, layout: Layout, scale: float
    ) -> Tensor:
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        outs, sums = [], []
        for part in _parts(layout):
            given = _heads(_asking(query, part)), _heads(_seen(key, part)), _heads(_seen(value, part))
            mask = _mask(layout, part, query.dtype)
            out, log_sums = flash_attention(*given, causal=part.is_prompt, mask=mask, scale=scale)
            outs.append(_own(out[0].transpose(0, 1), part))
            sums.append(_own(log_sums[0].t(), part))
        out, log_sums = torch.cat(outs), torch.cat(sums)
        ctx.save_for_backward(query, key, value, cos, sin, out, log_sums)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cos, sin, out, sums = ctx.saved_tensors
        of_queries, totals = [], (torch.empty_like(key), torch.empty_like(value))
        for part in _parts(ctx.layout):
            given = _heads(_asking(query, part)), _heads(_seen(key, part)), _heads(_seen(value, part))
            results = _heads(_asking(out, part)), _asking(sums, part).t()[None]
            mask = _mask(ctx.layout, part, query.dtype)
            asked = _heads(_asking_grad(grad, part))
            of_query, *of_seen = flash_attention_backward(
                asked, given, results, causal=part.is_prompt, mask=mask, scale=ctx.scale
            )
            of_queries.append(_own(of_query[0].transpose(0, 1), part))
            for total, each in zip(totals, of_seen, strict=True):
                seen, start = each[0].transpose(0, 1), 0
                for place in part.others:  # which were parts of their own before, or of such
                    total[place] += seen[start : (start := start + place.stop - place.start)]
                total[part.own] = seen[start:]
        # A rotation's transpose turns back.
        return _turned(torch.cat(of_queries), cos, -sin), _turned(totals[0], cos, -sin), totals[1], *[None] * 4


def _parts(layout: Layout) -> Iterator[_Part]:
    """Every part that has tokens; all together they are the row, in order."""
    start, common, prompt = 0, tuple[slice, ...](), tuple[slice, ...]()
    for number, (count, is_prompt) in enumerate(zip(layout.parts, layout.is_prompt, strict=True)):
        size = count if number else layout.common + count  # what all see begins the first prompt
        own = slice(start, start + size)
        start += size
        if is_prompt:
            prompt = (*common, own)
        if size:
            yield _Part(own, common if is_prompt else prompt, is_prompt)
        if number == 0 and layout.common:
            common = (slice(0, layout.common),)


def _asking(rows: Tensor, part: _Part) -> Tensor:
    """Rows of the tokens for which attention is asked: a prompt with all before it, since half of that is masked."""
    return _seen(rows, part) if part.is_prompt else rows[part.own]


def _asking_grad(grad: Tensor, part: _Part) -> Tensor:
    """The same of a gradient: what stands before a prompt has its own from elsewhere, and gets none here."""
    if not part.is_prompt or not part.others:
        return grad[part.own]
    return torch.cat((grad.new_zeros(part.others_size, *grad.shape[1:]), grad[part.own]))


def _own(rows: Tensor, part: _Part) -> Tensor:
    return rows[part.others_size :] if part.is_prompt else rows


def _seen(rows: Tensor, part: _Part) -> Tensor:
    return torch.cat([rows[place] for place in (*part.others, part.own)]) if part.others else rows[part.own]


def _mask(layout: Layout, part: _Part, dtype: torch.dtype) -> Tensor | None:
    """For n queries over P others and themselves, shape ``(n, P + n)``; none for prompts, which attention masks."""
    return None if part.is_prompt else layout.tail_bias(part.own.stop - part.own.start, part.others_size, dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions ``(d, d + D/2)`` of ``x (N, H, D)`` by its angle."""
    half = x.shape[-1] // 2
    sin = sin[:, None, :half]
    out = x * cos[:, None]
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


def _heads(rows: Tensor) -> Tensor:
    """``(n, H, D)`` as attention wants it: ``(1, H, n, D)``."""
    return rows.transpose(0, 1)[None]
