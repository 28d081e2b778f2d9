"""Distance between two next-token distributions."""

import torch
from torch import Tensor


def kl_divergence(policy_logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Exact KL(policy || reference) over the whole vocabulary at each position.

    Args:
        policy_logits: Scores before softmax, shape ``(..., V)``.
        reference_logits: The same for the reference, shape ``(..., V)``.

    Returns:
        Nats, shape ``(...)``, float32 at least: sum over v of p(v) (log p(v) - log q(v)). Tokens to which the policy
        gives probability 0 contribute 0.
    """
    log_p = torch.log_softmax(_wide(policy_logits), dim=-1)
    log_q = torch.log_softmax(_wide(reference_logits), dim=-1)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum(-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
