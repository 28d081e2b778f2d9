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


def merged_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL over some tokens and one outcome for all others: never more than the KL over the whole vocabulary.

    Merging outcomes cannot raise a KL (data-processing inequality; Cover and Thomas, theorem 2.8.1). With the
    reference's top-k tokens little is lost: what the policy moves elsewhere is seen as the others' gain.

    Args:
        policy: Log-probs of k distinct tokens, nats, shape ``(..., k)``.
        reference: The same tokens' log-probs under the reference, shape ``(..., k)``.

    Returns:
        Nats, shape ``(...)``, float64: sum over the k tokens and the others of p log(p / q).
    """
    log_p, log_q = (_with_others(values.double()) for values in (policy, reference))
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)


def _with_others(log_probs: Tensor) -> Tensor:
    # float32 leaves an error of about 1e-7 in a sum near 1, so less than that is no share.
    others = (-torch.expm1(torch.logsumexp(log_probs, dim=-1, keepdim=True))).clamp(min=1e-7)
    return torch.cat((log_probs, others.log()), dim=-1)
