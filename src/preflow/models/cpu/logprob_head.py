"""Log-probs of tokens with loss with their gradient, without logits that outlive a tile.

The gradient of a row's log-prob with respect to its hidden state is a vector that the forward can finish, because the
loss enters as one factor per row::

    log p_t = z_t - log sum_v exp z_v,   z = c(W h)        d log p_t / d h = ((1_t - p) * c'(W h)) W

So the forward needs two matrix products (``W h`` and ``p W``) and the backward none, where recomputing needs three.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Tokens with loss per tile at most. A product of fewer rows spends its time on bringing the head from memory.
_TILE = 512
#: The same where probabilities are held beside their logits: held-out evaluation takes no more memory than a step.
_TILE_OF_TWO = 128


class Scores(NamedTuple):
    """Per token with loss, shape ``(S,)`` each: nats, nats, logits, and whether the target is the top-1 token."""

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
        in_place = wants_grad and softcap is None
        count = -(-len(targets) // (_TILE if in_place else _TILE_OF_TWO))
        room = hidden.new_empty(-(-len(targets) // count), len(weight))  # every tile's logits in turn
        tiles = [
            _tile(h, weight, bias, t, softcap, wants_grad, wpo, room[: len(t)])
            for h, t in zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True)
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
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None,
    grad: bool,
    wpo: bool,
    room: Tensor,
) -> tuple[Tensor, ...]:
    """Log-prob, entropy, log-sum of squared probabilities, mean logit, top-1 flag and slope ``(n, E)`` of n tokens.

    The probabilities take the logits' place in ``room (n, V)`` where nothing reads the logits again: the mean of the
    logits under them is ``(p W) h``, whose first product the slope needs anyway.

    PyTorch's softmax adds the exponentials up in one running float32 sum per vector lane, which loses small ones beside
    a large one, the more the larger the vocabulary is (docs/start_checks.md). So the probabilities add up to more than
    one; ``sum`` adds in pairs, finds by how much, and everything is divided by it.
    """
    logits = torch.mm(hidden, weight.t(), out=room)
    if bias is not None:
        logits.add_(bias)
    bend = None
    if softcap is not None:
        logits.div_(softcap).tanh_()
        bend = 1 - logits * logits if grad else None
        logits.mul_(softcap)
    at = targets.unsqueeze(-1)
    mean = logits.mean(-1)
    top = logits.argmax(-1, keepdim=True)
    highest, picked = logits.gather(-1, top), logits.gather(-1, at)
    once = grad and softcap is None
    probs = torch.softmax(logits, dim=-1, out=logits) if once else torch.softmax(logits, dim=-1)
    mass = probs.sum(-1, keepdim=True)
    log_highest = (probs.gather(-1, top) / mass).log()  # at least -log V, so that nothing is lost
    log_prob, log_z = picked - highest + log_highest, highest - log_highest
    squares = torch.zeros_like(mean)
    if wpo:
        squares = (torch.linalg.vector_norm(probs, dim=-1) / mass.squeeze(-1)).log().mul_(2)
    slope = hidden.new_zeros(0)
    if once:
        expected_row = (probs @ weight).div_(mass)
        expected = torch.linalg.vecdot(expected_row, hidden)
        if bias is not None:
            expected += (probs @ bias).div_(mass.squeeze(-1))
        slope = weight[targets] - expected_row
    else:
        expected = logits.mul_(probs).sum(-1) / mass.squeeze(-1)  # in place: vecdot makes a product of its own
        if bend is not None:
            slope = weight[targets] * bend.gather(-1, at) - (probs.mul_(bend) @ weight).div_(mass)
    return log_prob.squeeze(-1), log_z.squeeze(-1) - expected, squares, mean, (top == at).squeeze(-1), slope


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
