"""Log-probabilities of responses."""

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Log-probability of each target token.

    Args:
        logits: Scores before softmax, shape ``(..., T, V)``; position t predicts ``targets[..., t]``.
        targets: Token ids, shape ``(..., T)``.
        mask: Positions that count, shape ``(..., T)``; the others give exactly 0, whatever their logits. None: all.

    Returns:
        Nats, shape ``(..., T)``, float32 at least.
    """
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if mask is not None:
        targets = targets.masked_fill(~mask, 0)
    picked = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    values = picked - torch.logsumexp(logits, dim=-1)
    return values if mask is None else torch.where(mask, values, torch.zeros_like(values))
