"""Direct Preference Optimization's quantities (Rafailov et al. 2023, arXiv:2305.18290)."""

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
