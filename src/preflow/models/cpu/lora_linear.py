"""LoRA layers with fewer passes over memory: ``y = x W' + b + s (x A') B'`` written into one result.

PEFT computes the same in five passes over the widest tensors (product, cast, product, scale, sum), and as many back. On
a CPU, where such passes cost as much as a third of the arithmetic, this matters. Left to PEFT are adapters with dropout
in use, DoRA, several adapters, quantized bases, biases that train, autocast, and weights in parts that only their own
layer gathers.
"""

import types
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from preflow.models.loading import LanguageModel
from preflow.models.sharding import is_whole


class _LoraLinear(torch.autograd.Function):
    """``x (N, in)``, ``weight (out, in)``, ``bias (out,)``, ``a (r, in)``, ``b (out, r)`` to ``(N, out)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        low = x @ a.t()
        out = linear(x, weight, bias)
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        narrow = (grad @ b).mul_(ctx.scale)
        grad_x = (grad @ weight).addmm_(narrow, a) if ctx.needs_input_grad[0] else None
        grad_a = narrow.t() @ x if ctx.needs_input_grad[3] else None
        grad_b = (grad.t() @ low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return grad_x, None, None, grad_a, grad_b, None


def fuse_lora(model: LanguageModel) -> int:
    """Let every plain LoRA layer of a model compute in fewer passes; layers that do already stay as they are.

    Returns:
        How many layers do so now.
    """
    from peft.tuners.lora import Linear as LoraLinear

    layers = [module for module in model.modules() if type(module) is LoraLinear and _is_plain(module)]
    for layer in layers:
        if not hasattr(layer.forward, "fused"):
            layer.forward = types.MethodType(_forward(layer.forward), layer)  # type: ignore[method-assign]
    return len(layers)


def _is_plain(layer: Any) -> bool:
    base = layer.get_base_layer()
    variants = getattr(layer, "lora_variant", {}) or getattr(layer, "use_dora", {})
    return type(base) is torch.nn.Linear and not (any(variants.values()) if variants else False)


def _forward(own: Any) -> Any:
    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        active = self.active_adapters
        if not usable(self, active, x) or args or kwargs:
            return own(x, *args, **kwargs)
        base, name = self.get_base_layer(), active[0]
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        flat = x.reshape(-1, x.shape[-1])
        out = _LoraLinear.apply(flat, base.weight, base.bias, a, b, self.scaling[name])  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], out.shape[-1])

    forward.fused = True  # type: ignore[attr-defined]
    return forward


def trains(layer: torch.nn.Module) -> bool:
    """Whether a layer's weight or bias takes gradients."""
    return any(parameter.requires_grad for parameter in layer.parameters())


def usable(layer: Any, active: list[str], x: Tensor) -> bool:
    """Whether a LoRA layer with these active adapters can compute ``x (..., in)`` in the fused way."""
    if layer.merged or layer.disable_adapters or len(active) != 1 or active[0] not in layer.lora_A:
        return False
    name = active[0]
    drops = layer.training and getattr(layer.lora_dropout[name], "p", 0.0) > 0
    base = layer.get_base_layer()
    weights = [part.weight for part in (base, layer.lora_A[name], layer.lora_B[name])]
    dtypes = {x.dtype, *(weight.dtype for weight in weights)}
    plain = layer.lora_B[name].bias is None and not trains(base) and all(map(is_whole, weights))
    return plain and not drops and len(dtypes) == 1 and not torch.is_autocast_enabled(x.device.type)
