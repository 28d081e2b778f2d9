"""Who sees whom in a row without padding, which models may take one, and SFT's numbers in it.

``tests/unit/equivalence`` compares pairs with TRL's trainer.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gpt2 import GPT2Config
from transformers.models.gpt_neox import GPTNeoXConfig
from transformers.models.llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.mamba import MambaConfig
from trl.trainer.utils import add_fused_lm_head

from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.packed import attention
from preflow.models.packed.layout import Layout, PromptResponses, in_one_row, shared_prefix_length
from preflow.models.packed.support import unsupported_reason
from preflow.models.trl_forward import pack_pairs, pack_sequences
from tests.unit.models.architectures import EDGES, GROUPED, forward, model_of, move, rows_of, trained

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def build(architecture: str) -> Any:
    model = model_of(architecture, lora=False)
    add_fused_lm_head(model, outputs=OUTPUTS)
    return model


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2", "gpt2"])
def test_sft_without_padding_gives_trls_numbers(architecture: str) -> None:
    """Labels in the middle of a row, at its end, a row in which nothing counts; the first two share a prefix."""
    plain, flat = build(architecture), build(architecture)
    pack_sequences(flat)
    ids = torch.tensor([[5, 6, 7, 8, 9, 3, 4, 4, 6], [5, 5, 6, 6, 7, 7, 0, 0, 0], [9, 8, 7, 6, 0, 0, 0, 0, 0]])
    labels = torch.full_like(ids, -100)
    labels[0, 2:4], labels[0, 7:], labels[1, 3:6] = ids[0, 2:4], ids[0, 7:], ids[1, 3:6]
    call = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels, "fused_lm_head": True}
    expected, got = plain(**call), flat(**call)
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        assert torch.allclose(getattr(got, name).float(), getattr(expected, name).float(), atol=2e-5), name
    expected.log_probs.sum().backward()
    got.log_probs.sum().backward()
    for (name, a), b in zip(plain.named_parameters(), flat.parameters(), strict=True):
        assert float((a.grad - b.grad).norm()) <= 1e-4 * float(a.grad.norm()) + 1e-7, name
    nothing = {**call, "labels": torch.full_like(ids, -100)}
    assert torch.equal(flat(**nothing).log_probs, plain(**nothing).log_probs)


@pytest.mark.parametrize("architecture", ["phi", "qwen2"])
def test_biases_that_train_get_their_gradients(architecture: str) -> None:
    """An adapter with PEFT's ``bias: all``, against TRL's padded forward; Phi's head has a bias too."""
    plain, packed = (model_of(architecture, lora=False).requires_grad_(False) for _ in range(2))
    wrapped: list[Any] = []
    for model in (plain, packed):
        torch.manual_seed(0)
        wrapped.append(get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", bias="all")))
    for model in (plain, packed):
        add_fused_lm_head(model, outputs=OUTPUTS)
    pack_pairs(packed)
    fuse_lora(wrapped[1])
    use_cpu_kernels(wrapped[1])
    gradients, rows = [], cast(list[dict[str, list[int]]], rows_of(EDGES, 0))
    for model in wrapped:
        move(model)
        forward(model, rows).log_probs.sum().backward()
        gradients.append({name: p.grad for name, p in trained(model).items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert ("base_model.model.lm_head.bias" in gradients[0]) == (architecture == "phi")
    assert any(name.endswith("q_proj.base_layer.bias") for name in gradients[0])
    for name, expected in gradients[0].items():
        # The slope of a key's bias is rounding: softmax does not see what all scores of a query have in common.
        assert float((gradients[1][name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("common", [[], [4, 3, 9, 5, 5]])
def test_flex_attention_sees_what_masks_see(window: int | None, softcap: float | None, common: list[int]) -> None:
    """The GPU's way, uncompiled on the CPU, against one attention call per group."""
    torch.manual_seed(0)
    groups: list[PromptResponses] = [([*common, 5, 6, 7, 8], [[9, 10], [11]]), ([*common, 5], [[6, 7, 8], [6]])]
    row = in_one_row(groups, torch.device("cpu"), share=True)
    assert row.layout.common == len(common)
    count = row.input_ids.shape[1]
    query, key, value = torch.randn(1, 4, count, 8), torch.randn(1, 2, count, 8), torch.randn(1, 2, count, 8)
    given = (query, key, value, row.layout, 0.3, window, softcap)
    assert torch.allclose(attention.flex(*given, compiled=False), attention.per_group(*given), atol=1e-6)


def test_who_sees_whom() -> None:
    """P = 3, C = 2, R = 1, worked out by hand: shared 2 places, branch 1 places 2-3, branch 2 place 4."""
    row = in_one_row([([5, 6, 7], [[8, 9], [10]]), ([4], [[3], [6]])], torch.device("cpu"))
    assert row.input_ids.tolist() == [[5, 6, 7, 8, 7, 4, 4]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 0]]
    assert row.targets.tolist() == [8, 9, 10, 3, 6]
    assert row.scored.tolist() == [2, 3, 4, 5, 6]
    first, second = (mask[0, 0].int().tolist() for mask in row.layout.masks(None))
    assert first == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert second == [[1, 0], [0, 1]]
    windowed = row.layout.masks(2)[0][0, 0].int().tolist()
    assert windowed == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]
    assert isinstance(row.layout, Layout)


def test_which_sequences_see_a_shared_prefix() -> None:
    """Two prompts that begin with 5 6, the second no longer than that and one more: 5 6 stand once, at places 0-1."""
    row = in_one_row([([5, 6, 7, 8], [[9, 9], [10]]), ([5, 6, 4], [[3], [6]])], torch.device("cpu"), share=True)
    assert row.input_ids.tolist() == [[5, 6, 7, 8, 9, 8, 4, 4]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 2, 2]]
    assert row.scored.tolist() == [3, 4, 5, 6, 7]
    assert row.targets.tolist() == [9, 9, 10, 3, 6]
    blocks = row.layout.blocks(None).mask_mod
    seen = [[bool(blocks(0, 0, torch.tensor(q), torch.tensor(k))) for k in range(8)] for q in range(8)]
    assert [[k for k in range(8) if seen[q][k]] for q in range(8)] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 5], [0, 1, 6], [0, 1, 7],
    ]  # fmt: skip
    assert row.layout.spread.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 6, 7]
    assert row.layout.kept.tolist() == [0, 1, 2, 3, 4, 5, 8, 9]
    assert row.layout.apart.parts == [3, 2, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [([[5, 6, 7]], 0), ([[5, 6], [5, 6, 7], [5, 6]], 2), ([[5, 6], [6, 5]], 0), ([[], [5]], 0), ([[9, 2], [9, 10]], 1)],
)
def test_how_many_tokens_all_rows_begin_with(prompts: list[list[int]], expected: int) -> None:
    assert shared_prefix_length(prompts) == expected


def test_stored_values_do_not_share_beginnings() -> None:
    """Their bits must not depend on which prompts stand together."""
    row = in_one_row([([5, 6, 7], [[8]]), ([5, 6, 4], [[3]])], torch.device("cpu"))
    assert row.input_ids.tolist() == [[5, 6, 7, 5, 6, 4]]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2), "not among those proven"),
        (GPTNeoXConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8),
         "not among those proven"),
        (LlamaConfig(**GROUPED, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
         "longest row"),
        (GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, reorder_and_upcast_attn=True), "way of its own"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_express_is_refused(config: PretrainedConfig, reason: str) -> None:
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    assert reason in str(unsupported_reason(model))


class OwnAttention(LlamaAttention):
    """As a repository's own modelling file has it: it reads no layout."""

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("layout", None)
        return super().forward(hidden_states, *args, **kwargs)


def test_attention_by_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model of a known architecture: with an attention of its own, and with a patched one as unsloth makes."""
    model = build("llama")
    assert unsupported_reason(model) is None
    with monkeypatch.context() as patch:
        patch.setattr(LlamaAttention, "forward", OwnAttention.forward)
        assert f"its LlamaAttention runs code of {__name__}" in str(unsupported_reason(model))
    layer = model.model.layers[0]
    layer.self_attn.forward = partial(OwnAttention.forward, layer.self_attn)
    assert f"its LlamaAttention runs code of {__name__}" in str(unsupported_reason(model))
    del layer.self_attn.forward
    assert unsupported_reason(model) is None
    layer.self_attn = OwnAttention(model.config, 0)
    assert f"its OwnAttention runs code of {__name__}" in str(unsupported_reason(model))


def test_state_space_layers_are_refused() -> None:
    model = build("qwen3")
    model.config = SimpleNamespace(model_type="qwen3", _attn_implementation="sdpa", layer_types=["linear_attention"])
    assert "linear_attention carry state" in str(unsupported_reason(model))


@pytest.mark.parametrize(
    ("device", "width", "dropout", "chosen"),
    [
        ("cuda", 16, 0.0, "flex"),
        ("cuda", 8, 0.0, "per_group"),
        ("cuda", 64, 0.1, "per_group"),
        ("cpu", 64, 0.0, "per_group"),
    ],
)
def test_flex_attention_is_taken_where_it_can_be_compiled(
    monkeypatch: pytest.MonkeyPatch, device: str, width: int, dropout: float, chosen: str
) -> None:
    """On a GPU, without dropout, for heads of 16 or more: torch 2.13 refuses narrower ones. No GPU is needed to ask."""
    called: list[str] = []
    for name in ("flex", "per_group"):
        monkeypatch.setattr(attention, name, lambda *_, _name=name, **__: called.append(_name))
    query: Any = SimpleNamespace(shape=(1, 4, 3, width), device=SimpleNamespace(type=device))
    attention._in_layout(query, query, query, Layout([[3]], torch.zeros(3), torch.arange(3)), dropout=dropout)
    assert called == [chosen]
