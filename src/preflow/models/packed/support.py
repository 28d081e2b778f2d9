"""Which architectures run as packed rows, and which of their layers the CPU kernels compute: one row per architecture.

An architecture is added here when a test shows that its packed outputs and gradients equal its padded ones
(``tests/unit/equivalence``), and its CPU kernels when a test shows the same of them (``tests/unit/models/cpu``).
"""

from dataclasses import dataclass
from typing import Any

from preflow.models.loading import LanguageModel
from preflow.observer import UserText


@dataclass(frozen=True, slots=True)
class Support:
    """What an architecture can do.

    Attributes:
        packed: Whether several of its rows run as one without padding.
        cpu_layers: Endings of the class names of its layers that ``models/cpu/llama_layers.py`` computes.
        unsupported_reason: Why not packed, or why not all of its layers; none where nothing is missing.
    """

    packed: bool = True
    cpu_layers: tuple[str, ...] = ()
    unsupported_reason: UserText | None = None


_ALL = ("RMSNorm", "MLP", "Attention")
#: By transformers' ``model_type``; an architecture that is not here runs padded.
ARCHITECTURES = {
    "llama": Support(cpu_layers=_ALL),
    "mistral": Support(cpu_layers=_ALL),
    "qwen2": Support(cpu_layers=_ALL),
    "qwen3": Support(cpu_layers=_ALL),
    "phi3": Support(cpu_layers=("RMSNorm",), unsupported_reason=UserText("its projections are joined in one matrix")),
    "gemma2": Support(unsupported_reason=UserText("its norms add 1 to their weight, and its scores are soft-capped")),
    "gemma3_text": Support(unsupported_reason=UserText("its norms add 1 to their weight, and its MLP is a GELU")),
    "gpt2": Support(
        unsupported_reason=UserText("its layers are transposed convolutions, and its positions are learned")
    ),
    "phi": Support(unsupported_reason=UserText("it has layer norms, a plain MLP and a partly rotary attention")),
    "mamba": Support(
        packed=False, unsupported_reason=UserText("its layers carry a state through the row, which no layout separates")
    ),
}
#: Architectures whose packed outputs are tested against their padded ones.
PACKED = tuple(name for name, support in ARCHITECTURES.items() if support.packed)
#: Implementations of attention that a layout can be handed to: transformers' names, and what they become.
ATTENTION = {"sdpa": "preflow_sdpa", "eager": "preflow_eager"}
#: Types of layers that a layout can describe.
_LAYER_TYPES = {"full_attention", "sliding_attention"}
#: Packages whose modules compute as they did in the tests; code from a model's own repository is another.
_TESTED = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "deepspeed", "trl", "preflow")
#: Rotary embeddings whose angles depend on the longest row of a batch.
_BATCH_DEPENDENT = ("dynamic", "longrope")
_SILU = ("silu", "swish")


def unsupported_reason(model: LanguageModel) -> UserText | None:
    """Why several rows of a model cannot run as one, or None if they can."""
    config = model.config
    support = ARCHITECTURES.get(config.model_type)
    if support is None or not support.packed:
        why = f": {support.unsupported_reason}" if support else ""
        return UserText(f"architecture {config.model_type!r} is not among those proven ({', '.join(PACKED)}){why}")
    if config._attn_implementation not in (*ATTENTION, *ATTENTION.values()):
        return UserText(f"attention {config._attn_implementation!r} takes no layout; use 'sdpa' or 'eager'")
    unknown = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if unknown:
        return UserText(f"layers of type {', '.join(sorted(unknown))} carry state that a layout does not separate")
    rope = getattr(config, "rope_parameters", None) or {}
    types = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    depends = [name for name in _BATCH_DEPENDENT if name in types]
    if depends:
        return UserText(f"its rotary embedding ({', '.join(depends)}) depends on the longest row of a batch")
    if getattr(config, "reorder_and_upcast_attn", False) or getattr(config, "use_bidirectional_attention", False):
        return UserText(
            "it computes attention in a way of its own (reorder_and_upcast_attn or use_bidirectional_attention)"
        )
    return _foreign_code(model)


def _foreign_code(model: LanguageModel) -> UserText | None:
    """Names a module whose code is not what the tests ran: the model repository's own, or a patched forward."""
    modules = list(model.modules())
    patched = [(type(module), vars(module)["forward"]) for module in modules if "forward" in vars(module)]
    for cls, forward in [*((cls, cls.forward) for cls in {type(module) for module in modules}), *patched]:
        home = str(getattr(getattr(forward, "func", forward), "__module__", "an unknown module"))
        if home.partition(".")[0] not in _TESTED:
            return UserText(f"its {cls.__name__} runs code of {home}, which may not heed a layout")
    return None


def all_layers_have_cpu_kernels(config: Any) -> bool:
    """Whether norms, MLPs and attention of a text model are all among those that the CPU kernels compute."""
    support = ARCHITECTURES.get(config.model_type, Support())
    return support.cpu_layers == _ALL and getattr(config, "hidden_act", None) in _SILU
