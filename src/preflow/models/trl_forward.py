"""TRL's forward with less work and the same numbers: no padding, each prompt once, what all begin with once.

TRL 1.16 calls ``model(input_ids, attention_mask, labels=..., fused_lm_head=True)`` and computes every loss and metric
from the per-token results. The functions here stand between that call and TRL's own forward.
"""

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

from preflow.models.cpu import logprob_head
from preflow.models.cpu.logprob_head import Scores
from preflow.models.cpu.lora_linear import trains
from preflow.models.loading import LanguageModel
from preflow.models.packed.attention import no_mask, register_packed_attention
from preflow.models.packed.layout import IGNORED, PackedRow, PromptResponses, in_one_row, whole_sequences
from preflow.models.sharding import in_whole, in_zero

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
#: TRL's own width of a tile of the vocabulary.
_VOCABULARY_TILE = 32768


def score_responses_only(model: LanguageModel) -> None:
    """Project only the positions whose next token counts to the vocabulary.

    The way for models whose attention cannot take several pairs in a row. On a GPU TRL does so itself; on the CPU it
    projects every position, which costs a fifth of a small model's forward. The model must have TRL's fused head.
    Results have the shapes that TRL's forward gives.
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


def pack_pairs(model: LanguageModel, *, wpo: bool = False, cpu_kernels: bool = True) -> None:
    """Run a DPO batch as one row without padding, each prompt once for both responses, and what all begin with once.

    The model must have TRL's fused head. It is called with right-padded ``input_ids`` of shape ``(2B, T)``, the first
    half chosen and the second half rejected, and gives per-token results of shape ``(2B, T - 1)`` as TRL's own forward
    does; every other call goes through unchanged.

    Args:
        model: A causal language model that ``support.unsupported_reason`` lets through.
        wpo: Whether WPO's ``log_sum_sq_probs`` is wanted.
        cpu_kernels: Whether a frozen head may be scored by ``models/cpu/logprob_head.py``.
    """
    padded_forward = model.forward
    register_packed_attention(model)
    score = partial(_score, wpo=wpo, cpu_kernels=cpu_kernels)

    def forward(self: LanguageModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head or kwargs.get("labels") is None:
            return padded_forward(*args, fused_lm_head=fused_lm_head, **kwargs)
        ids, attention, labels = (kwargs.pop(name) for name in ("input_ids", "attention_mask", "labels"))
        groups, places = _take_apart(ids, attention, labels)
        return _as_one_row(self, in_one_row(groups, ids.device, share=True), places, labels, score, kwargs)

    _replace_forward(model, forward)


def pack_sequences(model: LanguageModel, *, cpu_kernels: bool = True) -> None:
    """Run an SFT batch as one row without padding, up to the last token that counts of each of its rows.

    The model must have TRL's fused head. It is called with ``input_ids`` and ``labels`` of shape ``(B, T)``, padded on
    the right, and gives what TRL's own forward gives; every other call goes through unchanged.

    Args:
        model: A causal language model that ``support.unsupported_reason`` lets through.
        cpu_kernels: Whether a frozen head may be scored by ``models/cpu/logprob_head.py``.
    """
    padded_forward = model.forward
    register_packed_attention(model)
    score = partial(_score, wpo=False, cpu_kernels=cpu_kernels)

    def forward(self: LanguageModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if not fused_lm_head or labels is None or (labels[:, 1:] == IGNORED).all():
            return padded_forward(*args, fused_lm_head=fused_lm_head, **kwargs)
        ids = kwargs["input_ids"]
        places = (labels[:, 1:] != IGNORED).flatten().nonzero().squeeze(-1)
        dropped = ("input_ids", "attention_mask", "labels", "num_items_in_batch")
        rest = {name: value for name, value in kwargs.items() if name not in dropped}
        return _as_one_row(self, whole_sequences(ids, labels), places, labels, score, rest)

    _replace_forward(model, forward)


def _as_one_row(
    model: LanguageModel, row: PackedRow, places: Tensor, labels: Tensor, score: Callable[..., Scores], options: Any
) -> Any:
    """Run a row and put its per-token results where TRL looks for them.

    Args:
        model: The causal language model.
        row: What to run; S of its tokens are scored.
        places: Where each token with loss is in ``(B, T - 1)``, flat, shape ``(S,)``.
        labels: TRL's, shape ``(B, T)``.
        score: Gives the results of the model, hidden states ``(S, E)`` and targets ``(S,)``: ``_score``.
        options: The call's other arguments.
    """
    states = model.base_model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        attention_mask=no_mask(labels.device),
        layout=row.layout,
        **options,
    ).last_hidden_state
    scores = score(model, states[0, row.scored], row.targets)
    mask = labels[:, 1:] != IGNORED
    values: dict[str, Any] = {
        name: None if v is None else v.new_zeros(mask.numel()).index_put((places,), v).view(mask.shape)
        for name, v in scores._asdict().items()
    }
    loss = -values["log_probs"].sum() / mask.sum().clamp(min=1)
    return FusedCausalLMOutput(loss=loss, label_mask=mask, **values)


def _score(model: LanguageModel, hidden: Tensor, targets: Tensor, *, wpo: bool, cpu_kernels: bool) -> Scores:
    """Score tokens under a model's head: by a forward that ends the gradient, or, where the head trains, TRL's way."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    own = cpu_kernels and not trains(head) and hidden.dtype == head.weight.dtype == torch.float32
    wanted = ("log_probs", "entropy", "mean_logits", "is_top1") + (("log_sum_sq_probs",) if wpo else ())
    options = (1.0, _VOCABULARY_TILE, softcap, 1.0, wanted)
    # Before the trainer shards the weights there is nothing to gather, though DeepSpeed is switched on already.
    with maybe_gather_lm_head_ctx(*(each for each in (head.weight, head.bias) if in_zero(each))):
        weight, bias = (in_whole(each, hidden.dtype) for each in (head.weight, head.bias))
        assert weight is not None
        if own and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return logprob_head.score(hidden, weight, bias, targets, softcap, wpo)
        return Scores(*ChunkedLogProbFunction.apply(hidden, weight, bias, targets, *options))  # type: ignore[no-untyped-call]


def _replace_forward(model: LanguageModel, forward: Any) -> None:
    forward.__wrapped__ = model.forward.__func__  # PEFT and generation read the signature of the original
    model.forward = types.MethodType(forward, model)


def _rewrite(output: Any, change: Callable[[Tensor], Tensor]) -> None:
    for name in _PER_TOKEN:
        values = getattr(output, name)
        if values is not None:
            setattr(output, name, change(values))


def _take_apart(ids: Tensor, attention: Tensor, labels: Tensor) -> tuple[list[PromptResponses], Tensor]:
    """Prompts with both responses of a padded batch, and the flat places of their tokens in ``(2B, T - 1)``."""
    count, width = ids.shape
    half = count // 2
    lengths = attention.sum(-1).tolist()
    starts = (labels != IGNORED).int().argmax(-1).tolist()
    tokens = ids.tolist()
    groups: list[PromptResponses] = []
    places = []
    for i in range(half):
        responses = []
        for row in (i, half + i):
            responses.append(tokens[row][starts[row] : lengths[row]])
            places.append(torch.arange(row * (width - 1) + starts[row] - 1, row * (width - 1) + lengths[row] - 1))
        groups.append((tokens[i][: starts[i]], responses))
    return groups, torch.cat(places).to(ids.device)
