"""LoRA layers with fewer passes over memory: ``y = x W' + b + s (x A') B'`` written into one result.

PEFT computes the same in five passes over the widest tensors (product, cast, product, scale, sum), and as many back. On
a CPU, where such passes cost as much as a third of the arithmetic, this matters. Left to PEFT are adapters with dropout
in use, DoRA, several adapters, quantized bases, biases that train, autocast, and weights in parts that only their own
layer gathers.
"""

import types
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from preflow.models.cpu.operators import one_dnn_linear, one_dnn_linear_plus
from preflow.models.loading import LanguageModel
from preflow.models.sharding import is_whole


class Lora(NamedTuple):
    """A LoRA layer: ``weight (out, in)``, ``bias (out,)``, ``a (r, in)``, ``b (out, r)`` and the scale of ``b a``."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float


def lora_linears(x: Tensor, layers: Sequence[Lora], *, one_dnn: bool = True) -> Sequence[Tensor]:
    """Results of several LoRA layers over the same ``x (N, in)``.

    Args:
        x: Their input.
        layers: At least one.
        one_dnn: Whether products may go by oneDNN. Stored log-probs are made without: their bits must not change.
    """
    outs: Sequence[Tensor] = _LoraLinears.apply(x, [layer.scale for layer in layers], one_dnn, *flat(layers))  # type: ignore[no-untyped-call]
    return outs


def project(x: Tensor, layers: Sequence[Lora], *, one_dnn: bool = True) -> tuple[list[Tensor], Tensor]:
    """Results of layers over the same ``x (N, in)``, and ``x`` times all their ``a``: shape ``(N, sum of r)``."""
    low = x @ torch.cat([layer.a for layer in layers]).t()
    outs = [_times(x, layer.weight, layer.bias, one_dnn=one_dnn) for layer in layers]
    for out, layer, narrow in zip(outs, layers, _ranks(low, layers), strict=True):
        out.addmm_(narrow, layer.b.t(), alpha=layer.scale)
    return outs, low


def project_back(
    grads: Sequence[Tensor], x: Tensor, low: Tensor, layers: Sequence[Lora], wants_x: bool, *, one_dnn: bool = True
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Gradients of ``x`` (where wanted), of every ``a`` and of every ``b``."""
    narrow = torch.empty_like(low)
    for grad, layer, part in zip(grads, layers, _ranks(narrow, layers), strict=True):
        torch.mm(grad, layer.b, out=part).mul_(layer.scale)
    grad_x = None
    if wants_x:
        grad_x = narrow @ torch.cat([layer.a for layer in layers])
        for grad, layer in zip(grads, layers, strict=True):
            grad_x = _plus_times(grad_x, grad, layer.weight.t(), one_dnn=one_dnn)
    grad_a = (narrow.t() @ x).split([len(layer.a) for layer in layers])  # type: ignore[no-untyped-call]
    parts = zip(grads, layers, _ranks(low, layers), strict=True)
    return grad_x, list(grad_a), [(part.t() @ grad).mul_(layer.scale).t() for grad, layer, part in parts]


def _times(x: Tensor, weight: Tensor, bias: Tensor | None, *, one_dnn: bool) -> Tensor:
    """``x (N, in)`` times the transpose of ``weight (out, in)``, plus ``bias (out,)``."""
    return one_dnn_linear(x, weight, bias) if one_dnn and _by_one_dnn(x) else linear(x, weight, bias)


def _plus_times(total: Tensor, x: Tensor, weight: Tensor, *, one_dnn: bool) -> Tensor:
    """``total (N, out)`` plus ``x (N, in)`` times the transpose of ``weight (out, in)``; ``total`` is used up."""
    if one_dnn and _by_one_dnn(x):
        return one_dnn_linear_plus(total, x, weight)
    return total.addmm_(x, weight.t())


def _by_one_dnn(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and _one_dnn_is_faster()


@cache
def _one_dnn_is_faster() -> bool:
    """Whether products go by oneDNN. MKL, behind ``linear``, leaves the wider registers of others' processors unused.

    On Intel's own MKL is the faster one, by a fifth where the weight is not transposed.
    """
    mkl, one_dnn = torch.backends.mkl, torch.backends.mkldnn
    intels = "Intel" in str(torch.cpu.get_capabilities().get("cpu_name"))
    return one_dnn.is_available() and not (intels and mkl.is_available())  # type: ignore[no-untyped-call]


def _ranks(low: Tensor, layers: Sequence[Lora]) -> tuple[Tensor, ...]:
    return torch.split(low, [len(layer.a) for layer in layers], 1)


def flat(layers: Sequence[Lora]) -> list[Tensor | None]:
    """Tensors of some layers one after another: autograd sees tensors only where they are arguments themselves."""
    return [tensor for layer in layers for tensor in layer[:4]]


def unflat(tensors: Sequence[Any], scales: Sequence[float]) -> list[Lora]:
    """The layers of which ``flat`` gave the tensors."""
    fours = zip(tensors[::4], tensors[1::4], tensors[2::4], tensors[3::4], scales, strict=True)
    return [Lora(*parts) for parts in fours]


class _LoraLinears(torch.autograd.Function):
    """Several LoRA layers over the same ``x (N, in)``; gives the result of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], one_dnn: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        outs, low = project(x, unflat(tensors, scales), one_dnn=one_dnn)
        ctx.save_for_backward(x, low, *tensors)
        ctx.scales, ctx.one_dnn = scales, one_dnn
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, low, *tensors = ctx.saved_tensors
        layers, wants_x = unflat(tensors, ctx.scales), ctx.needs_input_grad[0]
        grad_x, grad_a, grad_b = project_back(grads, x, low, layers, wants_x, one_dnn=ctx.one_dnn)
        rest = [each for a, b in zip(grad_a, grad_b, strict=True) for each in (None, None, a, b)]
        return grad_x, None, None, *rest


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
        layer = None if args or kwargs else lora_of(self, x)
        if layer is None:
            return own(x, *args, **kwargs)
        (out,) = lora_linears(x.reshape(-1, x.shape[-1]), [layer], one_dnn=False)
        return out.view(*x.shape[:-1], out.shape[-1])

    forward.fused = True  # type: ignore[attr-defined]
    return forward


def trains(layer: torch.nn.Module) -> bool:
    """Whether a layer's weight or bias takes gradients."""
    return any(parameter.requires_grad for parameter in layer.parameters())


def lora_of(layer: Any, x: Tensor) -> Lora | None:
    """The parts of PEFT's LoRA layer, or None where it cannot compute ``x (..., in)`` in the fused way."""
    active = layer.active_adapters
    if layer.merged or layer.disable_adapters or len(active) != 1 or active[0] not in layer.lora_A:
        return None
    name = active[0]
    base, a, b = layer.get_base_layer(), layer.lora_A[name], layer.lora_B[name]
    drops = layer.training and getattr(layer.lora_dropout[name], "p", 0.0) > 0
    weights = [part.weight for part in (base, a, b)]
    dtypes = {x.dtype, *(weight.dtype for weight in weights)}
    plain = b.bias is None and not trains(base) and all(map(is_whole, weights))
    if not plain or drops or len(dtypes) != 1 or torch.is_autocast_enabled(x.device.type):
        return None
    return Lora(base.weight, base.bias, a.weight, b.weight, layer.scaling[name])
