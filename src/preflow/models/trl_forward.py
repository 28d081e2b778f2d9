"""TRL's forward with less work and the same numbers: scored positions alone, and each prompt once.

TRL 1.16 calls ``model(input_ids, attention_mask, labels=..., fused_lm_head=True)`` and computes every loss and metric
from the per-token results. The two functions here stand between that call and TRL's own forward.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from preflow.models.loading import LanguageModel
from preflow.models.packing import IGNORED, Packed, pack

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def score_responses_only(model: LanguageModel) -> None:
    """Project only the positions whose next token counts to the vocabulary.

    On a GPU TRL does so itself; on the CPU it projects every position, which costs a fifth of a small model's forward.
    The model must have TRL's fused head. Results have the shapes that TRL's forward gives.
    """
    every_position = model.forward

    def forward(self: LanguageModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        labels, shifted = kwargs.get("labels"), kwargs.get("shift_labels")
        targets = labels[:, 1:] if shifted is None and labels is not None else shifted
        if not fused_lm_head or targets is None or targets.device.type != "cpu" or (targets == IGNORED).all():
            return every_position(*args, fused_lm_head=fused_lm_head, **kwargs)
        counts = targets != IGNORED

        def keep_scored(module: Any, inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[:, : counts.shape[1]][counts].unsqueeze(0)
            return output

        hook = self.base_model.register_forward_hook(keep_scored)
        try:
            compact = {**kwargs, "labels": None, "shift_labels": targets[counts].unsqueeze(0)}
            output = every_position(*args, fused_lm_head=True, **compact)
        finally:
            hook.remove()
        _rewrite(output, lambda values: values.new_zeros(counts.shape).masked_scatter(counts, values))
        output.label_mask = counts
        return output

    _replace_forward(model, forward)


def share_prompts(model: LanguageModel) -> None:
    """Run each pair of a DPO batch once, as ``prompt | chosen | rejected``.

    The model must have TRL's fused head. It is called with right-padded ``input_ids`` of shape ``(2B, T)``, the first
    half chosen and the second half rejected, and gives per-token results of shape ``(2B, T - 1)`` as TRL's own forward
    does; every other call goes through unchanged.
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
        _rewrite(output, lambda values: _scatter(values, packed, places, ids.shape))
        output.label_mask = labels[:, 1:] != IGNORED
        return output

    _replace_forward(model, forward)


def _replace_forward(model: LanguageModel, forward: Any) -> None:
    forward.__wrapped__ = model.forward.__func__  # PEFT and generation read the signature of the original
    model.forward = types.MethodType(forward, model)


def _rewrite(output: Any, change: Callable[[Tensor], Tensor]) -> None:
    for name in _PER_TOKEN:
        values = getattr(output, name)
        if values is not None:
            setattr(output, name, change(values))


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
