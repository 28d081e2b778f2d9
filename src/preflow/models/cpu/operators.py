"""torch's operators below its public interface that the CPU kernels call, and the torch versions they hold for.

No other module calls an operator whose name begins with an underscore. Their signatures are not promised from one
version of torch to the next, so the CPU kernels are used with the versions named here alone.
"""

import torch
from torch import Tensor

#: Versions of torch (major and minor) in which these operators have the signatures and meaning used here.
TORCH_VERSIONS = ("2.13",)


def holds_for(version: str) -> bool:
    """Whether the operators are known in a version of torch, as ``torch.__version__`` names it."""
    return ".".join(version.split(".")[:2]) in TORCH_VERSIONS


def one_dnn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x (N, in)`` times the transpose of ``weight (out, in)``, plus ``bias (out,)``, by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return out


def one_dnn_linear_plus(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``total (N, out)`` plus ``x (N, in)`` times the transpose of ``weight (out, in)``, by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x.contiguous(), total, weight, None, "add")
    return out


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention on the CPU and the log-sum-exp of its scores, which its backward needs.

    Args:
        query: Shape ``(1, H, n, D)``.
        key: Shape ``(1, G, m, D)``; G divides H.
        value: Shape ``(1, G, m, D)``.
        causal: Whether a query sees keys up to its own place alone.
        mask: Added to the scores, shape ``(n, m)``.
        scale: Of the scores.

    Returns:
        Shapes ``(1, H, n, D)`` and ``(1, H, n)``.
    """
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, log_sums = operator(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    return out, log_sums


def flash_attention_backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    results: tuple[Tensor, Tensor],
    *,
    causal: bool,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value.

    Args:
        grad: Of what ``flash_attention`` returned first.
        inputs: Query, key and value, as it had them.
        results: What it returned.
        causal: As it had it, like ``mask`` and ``scale``.
        mask: See above.
        scale: See above.
    """
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    of_query, of_key, of_value = operator(grad, *inputs, *results, 0.0, causal, attn_mask=mask, scale=scale)
    return of_query, of_key, of_value
