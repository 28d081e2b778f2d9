"""Attention for rows of several pairs (``preflow.models.packed.layout``), under transformers' attention interface.

A model is switched to it once (``register_packed_attention``); a call without a layout is computed as before. On a GPU
the row goes through FlexAttention with a block mask; elsewhere each pair goes through SDPA with a mask of its own, so
that no score between pairs is computed. Sliding windows and soft-capped scores (Gemma 2) are supported too.
"""

import math
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from preflow.models.loading import LanguageModel
from preflow.models.packed.layout import Layout
from preflow.models.packed.support import ATTENTION

#: Heads below this width have no FlexAttention: torch 2.13 refuses to compile it.
_NARROWEST = 16


def register_packed_attention(model: LanguageModel) -> None:
    """Make a model's attention understand layouts; calls without one are computed as before."""
    AttentionInterface.register("preflow_sdpa", _with_sdpa)
    AttentionInterface.register("preflow_eager", _with_eager)
    AttentionMaskInterface.register("preflow_sdpa", sdpa_mask)
    AttentionMaskInterface.register("preflow_eager", eager_mask)
    name = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION.get(name, name)


def no_mask(device: torch.device) -> Tensor:
    """Stands for a mask that is ready made, so that a model makes none; the attention here never reads it."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def _with_sdpa(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    layout = options.pop("layout", None)
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    return _in_layout(query, key, value, layout, **options), None


def _with_eager(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    layout = options.pop("layout", None)
    if layout is None:
        own = sys.modules[type(module).__module__].eager_attention_forward
        return own(module, query, key, value, mask, **options)
    return _in_layout(query, key, value, layout, **options), None


def _in_layout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> Tensor:
    """Attention in a row of N tokens.

    Args:
        query: Shape ``(1, H, N, D)``.
        key: Shape ``(1, G, N, D)``; G divides H.
        value: Shape ``(1, G, N, D)``.
        layout: Who sees whom.
        dropout: Share of attention weights dropped.
        scaling: Of the scores; ``1 / sqrt(D)`` where not given.
        sliding_window: Positions a token sees, itself included.
        softcap: Scores are bounded to it by ``softcap * tanh(score / softcap)``.

    Returns:
        Shape ``(1, N, H, D)``.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    if query.device.type == "cuda" and dropout == 0 and query.shape[-1] >= _NARROWEST:
        return flex(query, key, value, layout, scale, sliding_window, softcap, compiled=True)
    return per_group(query, key, value, layout, scale, sliding_window, softcap, dropout)


def per_group(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """A few attention calls per group of the row. Shapes as in ``_in_layout``."""
    if layout.common:  # computed anew for every group, which costs less than calls whose queries see two places
        query, key, value = (t.index_select(2, layout.spread) for t in (query, key, value))
        spread = per_group(query, key, value, layout.apart, scale, window, softcap, dropout)
        return spread.index_select(1, layout.kept)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    if softcap is None and window is None:
        return _by_part(query, key, value, layout, scale, dropout)
    groups = zip(*(torch.split(t, layout.lengths, 2) for t in (query, key, value)), layout.masks(window), strict=True)
    results = []
    for q, k, v, visible in groups:
        if softcap is None:
            out = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=dropout, scale=scale)
        else:
            out = _capped(q, k, v, visible, scale, softcap, dropout)
        results.append(out.transpose(1, 2))
    return torch.cat(results, dim=1)


def _by_part(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
    """Prompts see themselves, responses their prompt and themselves: no score is computed that a mask would hide."""
    parts = zip(*(torch.split(t, layout.parts, 2) for t in (query, key, value)), layout.is_prompt, strict=True)
    results = []
    for q, k, v, is_prompt in parts:
        if is_prompt:
            prompt = k, v
            out = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale)
        else:
            keys, values = torch.cat((prompt[0], k), dim=2), torch.cat((prompt[1], v), dim=2)
            mask = layout.tail_mask(q.shape[2], keys.shape[2])
            out = scaled_dot_product_attention(q, keys, values, attn_mask=mask, dropout_p=dropout, scale=scale)
        results.append(out.transpose(1, 2))
    return torch.cat(results, dim=1)


def _capped(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float, softcap: float, dropout: float) -> Tensor:
    scores = q @ k.transpose(2, 3) * scale
    scores = (torch.tanh(scores / softcap) * softcap).masked_fill(~visible, -math.inf)
    weights = torch.softmax(scores.float(), dim=-1).to(q.dtype)
    weights = torch.nn.functional.dropout(weights, dropout) if dropout else weights
    return weights @ v


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    *,
    compiled: bool,
) -> Tensor:
    """One FlexAttention call for the whole row. Shapes as in ``_in_layout``."""
    from torch.nn.attention.flex_attention import flex_attention

    def capped(score: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    call = _compiled() if compiled else flex_attention
    out: Tensor = call(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=layout.blocks(window),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)
