"""Log-probs of scored tokens with their gradient, without logits that outlive a tile.

The gradient of a row's log-prob with respect to its hidden state is a vector that the forward can finish, because the
loss enters as one factor per row::

    log p_t = z_t - log sum_v exp z_v,   z = c(W h)        d log p_t / d h = ((1_t - p) * c'(W h)) W

So the forward needs two matrix products (``W h`` and ``p W``) and the backward none, where recomputing needs three.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Scored tokens per tile: a tile of a vocabulary of 49,152 is 25 MB, about a processor's last cache.
_TILE = 128


class Scores(NamedTuple):
    """Per scored token, shape ``(S,)`` each: nats, nats, logits, and whether the target is the likeliest token."""

    log_probs: Tensor
    entropy: Tensor
    log_sum_sq_probs: Tensor | None
    mean_logits: Tensor
    is_top1: Tensor


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None, wpo: bool
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        wants_grad = ctx.needs_input_grad[0]
        tiles = [
            _tile(h, weight, bias, t, softcap, wants_grad, wpo)
            for h, t in zip(torch.split(hidden, _TILE), torch.split(targets, _TILE), strict=True)
        ]
        *values, slope = (torch.cat(parts) for parts in zip(*tiles, strict=True))
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(*values[1:])
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (None if grad is None else slope * grad.unsqueeze(-1), None, None, None, None, None)


def _tile(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None, grad: bool, wpo: bool
) -> tuple[Tensor, ...]:
    """Log-prob, entropy, log-sum of squared probabilities, mean logit, top-1 flag and slope ``(n, E)`` of n tokens."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    bend = None
    if softcap is not None:
        logits = logits.div_(softcap).tanh_()
        bend = 1 - logits * logits if grad else None
        logits = logits * softcap
    at = targets.unsqueeze(-1)
    mean = logits.mean(-1)
    first = logits.argmax(-1) == targets
    logps = torch.log_softmax(logits, dim=-1)
    picked = logps.gather(-1, at).squeeze(-1)
    log_z = logits.gather(-1, at).squeeze(-1) - picked
    probs = logps.exp_()
    squares = (probs * probs).sum(-1).log() if wpo else torch.zeros_like(picked)
    entropy = log_z - torch.linalg.vecdot(probs, logits)
    if not grad:
        return picked, entropy, squares, mean, first, hidden.new_zeros(0)
    if bend is None:
        slope = weight[targets] - probs @ weight
    else:
        slope = weight[targets] * bend.gather(-1, at) - (probs * bend) @ weight
    return picked, entropy, squares, mean, first, slope


def score(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None, wpo: bool
) -> Scores:
    """Score tokens under a frozen head.

    Args:
        hidden: Last hidden states at the scored positions, shape ``(S, E)``, float32.
        weight: The head, shape ``(V, E)``, without gradient.
        bias: Shape ``(V,)``, or None.
        targets: The tokens, shape ``(S,)``.
        softcap: Logits are bounded to it by a tanh (Gemma 2).
        wpo: Whether WPO's log-sum of squared probabilities is wanted.
    """
    if not targets.numel():
        nothing = hidden.sum(-1)
        return Scores(nothing, nothing, nothing if wpo else None, nothing, nothing.bool())
    log_probs, entropy, squares, mean, first = _Score.apply(hidden, weight, bias, targets, softcap, wpo)  # type: ignore[no-untyped-call]
    return Scores(log_probs, entropy, squares if wpo else None, mean, first)
