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


def binary_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL between "this token" and "any other token" under two models: never more than the KL over the vocabulary.

    Merging outcomes cannot raise a KL (data-processing inequality; Cover and Thomas, theorem 2.8.1), so summed over a
    response it bounds the KL along that response from below, and needs only the log-probs of the response's tokens.

    Args:
        policy: Log-probs of tokens, nats, shape ``(...)``.
        reference: The same tokens' log-probs under the reference, shape ``(...)``.

    Returns:
        Nats, shape ``(...)``, float64: p log(p / q) + (1 - p) log((1 - p) / (1 - q)).
    """
    log_p, log_q = (values.double().clamp(max=-1e-12) for values in (policy, reference))
    p = log_p.exp()
    others_p, others_q = (torch.log(-torch.expm1(values)) for values in (log_p, log_q))
    return (p * (log_p - log_q) + (1 - p) * (others_p - others_q)).clamp(min=0)
