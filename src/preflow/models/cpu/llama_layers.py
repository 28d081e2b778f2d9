"""Layers of the Llama kind for training on the CPU: the same numbers in fewer passes over memory, and less of it kept.

On a CPU a training step writes each of its tensors into memory that the system must first hand out, which costs more
than the arithmetic of a norm or an activation. So the functions here write in place where nobody reads the old values,
keep for the backward only what they cannot quickly compute again, and project what shares its input together. Layers
are known by their class; those of other classes, dtypes and devices keep their own forward.
"""

import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, silu
from transformers.activations import SiLUActivation

from preflow.models.cpu.lora_linear import usable
from preflow.models.cpu.rotary_attention import rotary_attention
from preflow.models.loading import LanguageModel

_KINDS = ("llama", "mistral", "qwen2", "qwen3", "phi3")
_SILU = ("silu", "swish")


class Lora(NamedTuple):
    """A LoRA layer: ``weight (out, in)``, ``bias (out,)``, ``a (r, in)``, ``b (out, r)`` and the scale of ``b a``."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float


def _project(x: Tensor, layers: Sequence[Lora]) -> tuple[list[Tensor], Tensor]:
    """Results of layers over the same ``x (N, in)``, and ``x`` times all their ``a``: shape ``(N, sum of r)``."""
    low = x @ torch.cat([layer.a for layer in layers]).t()
    outs = [_times(x, layer.weight, layer.bias) for layer in layers]
    for out, layer, narrow in zip(outs, layers, _ranks(low, layers), strict=True):
        out.addmm_(narrow, layer.b.t(), alpha=layer.scale)
    return outs, low


def _project_back(
    grads: Sequence[Tensor], x: Tensor, low: Tensor, layers: Sequence[Lora], wants_x: bool
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Gradients of ``x`` (where wanted), of every ``a`` and of every ``b``."""
    narrow = torch.empty_like(low)
    for grad, layer, part in zip(grads, layers, _ranks(narrow, layers), strict=True):
        torch.mm(grad, layer.b, out=part).mul_(layer.scale)
    grad_x = None
    if wants_x:
        grad_x = narrow @ torch.cat([layer.a for layer in layers])
        for grad, layer in zip(grads, layers, strict=True):
            grad_x = _plus_times(grad_x, grad, layer.weight.t())
    grad_a = (narrow.t() @ x).split([len(layer.a) for layer in layers])  # type: ignore[no-untyped-call]
    parts = zip(grads, layers, _ranks(low, layers), strict=True)
    return grad_x, list(grad_a), [(part.t() @ grad).mul_(layer.scale).t() for grad, layer, part in parts]


def _times(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x (N, in)`` times the transpose of ``weight (out, in)``, plus ``bias (out,)``."""
    if _by_one_dnn(x):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
        return out
    return linear(x, weight, bias)


def _plus_times(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``total (N, out)`` plus ``x (N, in)`` times the transpose of ``weight (out, in)``; ``total`` is used up."""
    if _by_one_dnn(x):
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x.contiguous(), total, weight, None, "add")
        return out
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


def _flat(layers: Sequence[Lora]) -> list[Tensor | None]:
    """Tensors of some layers one after another: autograd sees tensors only where they are arguments themselves."""
    return [tensor for layer in layers for tensor in layer[:4]]


def _layers(flat: Sequence[Any], scales: Sequence[float]) -> list[Lora]:
    starts = range(0, len(flat), 4)
    return [
        Lora(flat[i], flat[i + 1], flat[i + 2], flat[i + 3], scale) for i, scale in zip(starts, scales, strict=True)
    ]


class _LoraLinears(torch.autograd.Function):
    """Several LoRA layers over the same ``x (N, in)``; gives the result of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], *flat: Tensor | None) -> tuple[Tensor, ...]:
        outs, low = _project(x, _layers(flat, scales))
        ctx.save_for_backward(x, low, *flat)
        ctx.scales = scales
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, low, *flat = ctx.saved_tensors
        wants_x = ctx.needs_input_grad[0]
        grad_x, grad_a, grad_b = _project_back(grads, x, low, _layers(flat, ctx.scales), wants_x)
        rest = [each for a, b in zip(grad_a, grad_b, strict=True) for each in (None, None, a, b)]
        return grad_x, None, *rest


class _GatedMlp(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))`` of three LoRA layers, ``x (N, E)`` to ``(N, E)``.

    Keeps the gate and the upper half alone: the product of both, as wide, is computed again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], *flat: Tensor | None) -> Tensor:
        layers = _layers(flat, scales)
        (gate, up), low = _project(x, layers[:2])
        (out,), low_down = _project(silu(gate).mul_(up), layers[2:])
        ctx.save_for_backward(x, gate, up, low, low_down, *flat)
        ctx.scales = scales
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, low, low_down, *flat = ctx.saved_tensors
        layers = _layers(flat, ctx.scales)
        active = silu(gate)
        inner, down_a, down_b = _project_back([grad], active * up, low_down, layers[2:], wants_x=True)
        assert inner is not None, "asked for"
        grad_up = active.mul_(inner)
        grad_gate = inner.mul_(up)
        torch.ops.aten.silu_backward.grad_input(inner, gate, grad_input=grad_gate)
        wants_x = ctx.needs_input_grad[0]
        grad_x, grad_a, grad_b = _project_back([grad_gate, grad_up], x, low, layers[:2], wants_x)
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
    homes = {f"transformers.models.{kind}.modeling_{kind}" for kind in _KINDS}
    for module in model.modules():
        if type(module).__module__ not in homes or hasattr(module.forward, "fast"):
            continue
        for ending, make in forwards.items():
            if type(module).__name__.endswith(ending) and _expected(module, ending):
                forward = make(module.forward)
                forward.fast = True
                module.forward = types.MethodType(forward, module)


def supports(config: Any) -> bool:
    """Whether norms, MLPs and attention of a text model are all among those that ``use_cpu_kernels`` replaces."""
    return config.model_type in _KINDS[:4] and getattr(config, "hidden_act", None) in _SILU


def _expected(module: Any, ending: str) -> bool:
    """Whether a module has the parts that its forward here reads (Phi-3's MLP and attention have others)."""
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
        flat = x.reshape(-1, x.shape[-1])
        out = _GatedMlp.apply(flat, [layer.scale for layer in layers], *_flat(layers))  # type: ignore[no-untyped-call]
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
    outs: Sequence[Tensor] = _LoraLinears.apply(x, [layer.scale for layer in layers], *_flat(layers))  # type: ignore[no-untyped-call]
    return outs


def _plain(*tensors: Tensor) -> bool:
    on_cpu = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return on_cpu and not torch.is_autocast_enabled("cpu")


def _loras(modules: Sequence[Any], x: Tensor) -> list[Lora] | None:
    """What fused LoRA layers consist of, or None where one of them cannot go through ``_project``."""
    layers = []
    for module in modules:
        if not _plain(x) or not hasattr(module.forward, "fused") or not usable(module, module.active_adapters, x):
            return None
        base, name = module.get_base_layer(), module.active_adapters[0]
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        layers.append(Lora(base.weight, base.bias, a, b, module.scaling[name]))
    return layers
