"""Layers of the Llama kind for training on the CPU: the same numbers in fewer passes over memory, and less of it kept.

On a CPU a training step writes each of its tensors into memory that the system must first hand out, which costs more
than the arithmetic of a norm or an activation. So the functions here write in place where nothing reads the old values,
keep for the backward only what they cannot quickly compute again, and project what shares its input together. Layers
are known by their class; those of other classes, dtypes and devices keep their own forward.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers.activations import SiLUActivation

from preflow.models.cpu.lora_linear import Lora, flat, lora_linears, lora_of, project, project_back, unflat
from preflow.models.cpu.rotary_attention import rotary_attention
from preflow.models.loading import LanguageModel
from preflow.models.packed.support import ARCHITECTURES


class _GatedMlp(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))`` of three LoRA layers, ``x (N, E)`` to ``(N, E)``.

    Keeps the gate and the upper half alone: the product of both, as wide, is computed again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], *tensors: Tensor | None) -> Tensor:
        layers = unflat(tensors, scales)
        (gate, up), low = project(x, layers[:2])
        (out,), low_down = project(silu(gate).mul_(up), layers[2:])
        ctx.save_for_backward(x, gate, up, low, low_down, *tensors)
        ctx.scales = scales
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, low, low_down, *tensors = ctx.saved_tensors
        layers = unflat(tensors, ctx.scales)
        active = silu(gate)
        inner, down_a, down_b = project_back([grad], active * up, low_down, layers[2:], wants_x=True)
        assert inner is not None, "asked for"
        grad_up = active.mul_(inner)
        grad_gate = inner.mul_(up)
        torch.ops.aten.silu_backward.grad_input(inner, gate, grad_input=grad_gate)
        wants_x = ctx.needs_input_grad[0]
        grad_x, grad_a, grad_b = project_back([grad_gate, grad_up], x, low, layers[:2], wants_x)
        rest = [g for a, b in zip([*grad_a, *down_a], [*grad_b, *down_b], strict=True) for g in (None, None, a, b)]
        return grad_x, None, *rest


class _RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension; the weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = (length.square_() / x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        out: Tensor = (x * inverse).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad_x = grad * weight
        along = torch.linalg.vecdot(grad_x, x).unsqueeze(-1).mul_(inverse.pow(3)).div_(x.shape[-1])
        return grad_x.mul_(inverse).addcmul_(x, along, value=-1), None, None


def use_cpu_kernels(model: LanguageModel) -> None:
    """Let the layers of a model that trains on the CPU compute as above, wherever their class is known.

    Call it after ``fuse_lora``. Values change in their last bits: models that score for the store are left alone.
    """
    forwards: dict[str, Callable[[Any], Any]] = {"RMSNorm": _norm, "MLP": _mlp, "Attention": _attention}
    homes = {f"transformers.models.{name}.modeling_{name}": each.cpu_layers for name, each in ARCHITECTURES.items()}
    for module in model.modules():
        if hasattr(module.forward, "fast"):
            continue
        for ending in homes.get(type(module).__module__, ()):
            make = forwards[ending]
            if type(module).__name__.endswith(ending) and _expected(module, ending):
                forward = make(module.forward)
                forward.fast = True
                module.forward = types.MethodType(forward, module)


def _expected(module: Any, ending: str) -> bool:
    """Whether a module has the parts that its forward here reads (an MLP with another activation has others)."""
    if ending == "MLP":
        return hasattr(module, "gate_proj") and type(module.act_fn) in (torch.nn.SiLU, SiLUActivation)
    return ending == "RMSNorm" or hasattr(module, "q_proj")


def _norm(own: Any) -> Any:
    def forward(self: Any, x: Tensor) -> Any:
        if not _plain(x, self.weight) or self.weight.requires_grad:
            return own(x)
        return _RmsNorm.apply(x, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]

    return forward


def _mlp(own: Any) -> Any:
    def forward(self: Any, x: Tensor) -> Any:
        layers = _loras((self.gate_proj, self.up_proj, self.down_proj), x)
        if layers is None:
            return own(x)
        rows = x.reshape(-1, x.shape[-1])
        out = _GatedMlp.apply(rows, [layer.scale for layer in layers], *flat(layers))  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], out.shape[-1])

    return forward


def _attention(own: Any) -> Any:
    def forward(
        self: Any, hidden_states: Tensor, position_embeddings: Any = None, attention_mask: Any = None, **options: Any
    ) -> Any:
        layout, window = options.get("layout"), getattr(self, "sliding_window", None)
        window = window or (getattr(self.config, "sliding_window", None) if _is_mistral(self) else None)
        drops = self.training and self.attention_dropout > 0
        cached = options.get("past_key_values") is not None
        if layout is None or cached or drops or not _plain(hidden_states, *position_embeddings):
            return own(hidden_states, position_embeddings, attention_mask, **options)
        if window is not None and max(layout.apart.lengths) > window:  # a longer window hides nothing
            return own(hidden_states, position_embeddings, attention_mask, **options)
        query, key, value = _queries_keys_values(self, hidden_states[0])
        cos, sin = (part[0] for part in position_embeddings)
        out = rotary_attention(query, key, value, cos, sin, layout, self.scaling)
        (result,) = _projected((self.o_proj,), out.flatten(1))
        return result[None], None

    return forward


def _is_mistral(module: Any) -> bool:
    """Mistral's layers read their window from the configuration, the others from themselves."""
    return type(module).__name__ == "MistralAttention"


def _queries_keys_values(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``x (N, E)``: shapes ``(N, H, D)``, ``(N, G, D)`` and ``(N, G, D)``, before their rotary embedding."""
    outs = _projected((attention.q_proj, attention.k_proj, attention.v_proj), x)
    query, key, value = (out.view(len(x), -1, attention.head_dim) for out in outs)
    if hasattr(attention, "q_norm"):  # Qwen 3
        query, key = attention.q_norm(query), attention.k_norm(key)
    return query, key, value


def _projected(projections: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
    """Results of some layers over the same ``x (N, in)``."""
    layers = _loras(projections, x)
    if layers is None:
        return [projection(x) for projection in projections]
    return lora_linears(x, layers)


def _plain(*tensors: Tensor) -> bool:
    on_cpu = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return on_cpu and not torch.is_autocast_enabled("cpu")


def _loras(modules: Sequence[Any], x: Tensor) -> list[Lora] | None:
    """What fused LoRA layers consist of, or None where one of them cannot go through ``project``."""
    layers = []
    for module in modules:
        layer = lora_of(module, x) if _plain(x) and hasattr(module.forward, "fused") else None
        if layer is None:
            return None
        layers.append(layer)
    return layers
