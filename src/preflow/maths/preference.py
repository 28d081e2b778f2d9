"""Direct Preference Optimization's quantities (Rafailov et al. 2023, arXiv:2305.18290)."""

import torch
from torch import Tensor


def implicit_reward(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Equation 5 without the prompt's constant: ``beta * (log pi(y|x) - log ref(y|x))``.

    Args:
        policy: Log-probs of responses under the policy, nats, shape ``(N,)``.
        reference: The same under the reference, shape ``(N,)``.
        beta: Strength of the pull towards the reference.

    Returns:
        Rewards, shape ``(N,)``.
    """
    return beta * (policy - reference)


def dpo_logits(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """How much more the policy prefers chosen than the reference does, in nats, shape ``(N,)`` from four ``(N,)``."""
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def dpo_sigmoid_loss(logits: Tensor, beta: float) -> Tensor:
    """Equation 7 per pair: ``-log sigmoid(beta * logits)``, shape ``(N,)``."""
    return -torch.nn.functional.logsigmoid(beta * logits)
