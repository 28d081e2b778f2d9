"""TRL's padded ``[chosen; rejected]`` batches through packed forwards: same losses and metrics, half the tokens."""

import types
from typing import Any

import torch
from torch import Tensor

from preflow.models.loading import LanguageModel
from preflow.models.packing import IGNORED, Packed, pack

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def share_prompts(model: LanguageModel) -> None:
    """Let ``model(..., labels=..., fused_lm_head=True)`` run each pair of a DPO batch once.

    The model must have TRL's fused head already. It is called with right-padded ``input_ids`` of shape ``(2B, T)``, the
    first half chosen and the second half rejected, and gives per-token results of shape ``(2B, T - 1)`` as TRL's own
    forward does; every other call goes through unchanged.
    """
    padded_forward = model.forward

    def forward(self: LanguageModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head or kwargs.get("labels") is None:
            return padded_forward(*args, fused_lm_head=fused_lm_head, **kwargs)
        ids, attention, labels = (kwargs.pop(name) for name in ("input_ids", "attention_mask", "labels"))
        packed, places = _repack(ids, attention, labels, self.config.pad_token_id or 0)
        output = padded_forward(
            *args,
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=packed.mask,
            shift_labels=packed.targets,
            fused_lm_head=True,
            **kwargs,
        )
        for name in _PER_TOKEN:
            values = getattr(output, name)
            if values is not None:
                setattr(output, name, _scatter(values, packed, places, ids.shape))
        output.label_mask = labels[:, 1:] != IGNORED
        return output

    # PEFT and generation read the signature of the original forward.
    forward.__wrapped__ = padded_forward.__func__  # type: ignore[attr-defined]
    model.forward = types.MethodType(forward, model)


def _repack(ids: Tensor, attention: Tensor, labels: Tensor, pad: int) -> tuple[Packed, Tensor]:
    """Packed rows for a padded batch, and the flat places of its scored tokens in ``(2B, T - 1)``, in packed order."""
    count, width = ids.shape
    half = count // 2
    lengths = attention.sum(-1).tolist()
    starts = (labels != IGNORED).int().argmax(-1).tolist()
    tokens = ids.tolist()
    rows, places = [], []
    for i in range(half):
        responses = []
        for row in (i, half + i):
            responses.append(tokens[row][starts[row] : lengths[row]])
            places.append(torch.arange(row * (width - 1) + starts[row] - 1, row * (width - 1) + lengths[row] - 1))
        rows.append((tokens[i][: starts[i]], responses))
    return pack(rows, pad, ids.device), torch.cat(places).to(ids.device)


def _scatter(values: Tensor, packed: Packed, places: Tensor, shape: torch.Size) -> Tensor:
    """Per-position values ``(B, L)`` to TRL's ``(2B, T - 1)``, zero where nothing is scored."""
    flat = values.new_zeros(shape[0] * (shape[1] - 1))
    return flat.index_put((places,), values[packed.targets != IGNORED]).view(shape[0], shape[1] - 1)
