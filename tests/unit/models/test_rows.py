"""Rows without padding give TRL's padded numbers: log-probs, losses, gradients, trainings, for every known kind."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gemma2 import Gemma2Config
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.gpt2 import GPT2Config
from transformers.models.gpt_neox import GPTNeoXConfig
from transformers.models.llama import LlamaConfig
from transformers.models.mamba import MambaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.phi import PhiConfig
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from preflow.maths.logprobs import tolerance
from preflow.models import attention
from preflow.models.attention import KNOWN, why_not
from preflow.models.fast_layers import quicken
from preflow.models.layout import Layout, in_one_row
from preflow.models.lora import fuse
from preflow.models.trl_forward import drop_padding, share_prompts
from preflow.training_settings import LossType

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZES, "head_dim": 8}
CAPPED: dict[str, Any] = {
    "final_logit_softcapping": 3.0,
    "sliding_window": 6,
    "query_pre_attn_scalar": 8,
    "attention_dropout": 0.0,
}
EAGER: dict[str, Any] = {"attn_implementation": "eager", "attn_logit_softcapping": 2.0}
#: Sliding windows are shorter than most rows, and soft caps low enough to bend the numbers.
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=5),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, **CAPPED, **EAGER),
    "gemma3_text": Gemma3TextConfig(**GROUPED, **CAPPED, layer_types=["sliding_attention", "full_attention"]),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256, pad_token_id=0, initializer_range=0.2,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    ),
    "phi": PhiConfig(**{**SIZES, "num_key_value_heads": 4}),
    "phi3": Phi3Config(**SIZES, sliding_window=7),
}  # fmt: skip
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
SMOOTH = {"exo_pair", "robust", "aot", "aot_unpaired"}
Pair = dict[str, list[int]]
tokens = st.integers(3, VOCABULARY - 1)


def lists(most: int) -> Any:
    return st.lists(tokens, min_size=1, max_size=most)


pairs = st.lists(
    st.fixed_dictionaries({"prompt_ids": lists(24), "chosen_ids": lists(12), "rejected_ids": lists(12)}),
    min_size=1,
    max_size=4,
)
EDGES: list[Pair] = [
    {
        "prompt_ids": [5],
        "chosen_ids": [6],
        "rejected_ids": [7],
    },  # nothing shared but the last token; one-token responses
    {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [8, 9]},  # identical responses
    {"prompt_ids": list(range(3, 43)), "chosen_ids": [9], "rejected_ids": [10, 11]},  # a prompt much longer
    {"prompt_ids": [4, 4], "chosen_ids": list(range(3, 33)), "rejected_ids": [5]},
]


def build(kind: str, *, packed: bool, lora: bool = False) -> Any:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(CONFIGS[kind], dtype=torch.float32)  # type: ignore[no-untyped-call]
    wrapped: Any = model
    if lora:
        modules = ["c_attn", "c_proj", "c_fc"] if kind == "gpt2" else "all-linear"
        wrapped = get_peft_model(model.requires_grad_(False), LoraConfig(r=4, target_modules=modules))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    add_fused_lm_head(model, outputs=OUTPUTS)
    if packed:
        assert why_not(model) is None
        share_prompts(model, wpo=True)
        fuse(wrapped)
        quicken(wrapped)
    return wrapped


def collate(rows: list[Pair]) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = DataCollatorForPreference(pad_token_id=0)(rows)
    return batch


def forward(model: Any, rows: list[Pair]) -> Any:
    batch = collate(rows)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model(**given, labels=labels, use_cache=False, fused_lm_head=True)


MODELS = {kind: [build(kind, packed=packed, lora=True) for packed in (False, True)] for kind in CONFIGS}


def test_every_known_kind_is_tested() -> None:
    assert set(CONFIGS) == set(KNOWN)


@pytest.mark.parametrize("kind", KNOWN)
@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@example(rows=EDGES)
@given(rows=pairs)
def test_log_probs_equal_padded_ones(kind: str, rows: list[Pair]) -> None:
    padded, packed = (forward(model, rows) for model in MODELS[kind])
    lengths = [len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    for got, expected, count in zip(packed.log_probs, padded.log_probs, lengths, strict=True):
        assert abs(float((got - expected).detach().sum())) <= tolerance(float(expected.sum()), count)
    for name in ("entropy", "mean_logits", "log_sum_sq_probs"):
        assert torch.allclose(getattr(packed, name), getattr(padded, name), atol=2e-5), name
    assert packed.is_top1.equal(padded.is_top1)
    assert packed.label_mask.equal(padded.label_mask)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("lora", [True, False])
def test_gradients_equal(kind: str, lora: bool) -> None:
    models = MODELS[kind] if lora else [build(kind, packed=packed) for packed in (False, True)]
    gradients = []
    for model in models:
        model.zero_grad()
        values = forward(model, EDGES).log_probs.sum(-1)
        (0.02 * (values[:4] - 2 * values[4:])).sigmoid().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, expected in gradients[0].items():
        assert float((gradients[1][name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-7, name


def trls_loss(model: Any, rows: list[Pair], loss_type: str) -> torch.Tensor:
    """TRL's own loss code on a model's forward, without a trainer around it."""
    same = lambda value: value  # noqa: E731
    trainer: Any = SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same),
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, loss_types=[loss_type], loss_weights=[1.0],
        f_divergence_type="reverse_kl", beta=0.3, label_smoothing=0.1 if loss_type in SMOOTH else 0.0,
        args=SimpleNamespace(discopop_tau=0.05), use_weighting=False, _total_train_tokens=0, _tp_size=1,
        _metrics={mode: defaultdict(list) for mode in ("train", "eval")},
    )  # fmt: skip
    batch = collate(rows)
    count = len(rows)
    batch["ref_chosen_logps"] = torch.arange(count) - 20.0
    batch["ref_rejected_logps"] = torch.arange(count) * -2.0 - 15
    compute: Any = DPOTrainer._compute_loss
    loss: torch.Tensor = compute(trainer, model, batch, return_outputs=False)
    return loss


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_all_losses_equal(loss_type: str) -> None:
    for kind, models in MODELS.items():
        with torch.no_grad():
            padded, packed = (float(trls_loss(model, EDGES, loss_type)) for model in models)
        assert packed == pytest.approx(padded, rel=1e-4, abs=1e-6), kind


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_trainings_of_twenty_steps_end_alike(kind: str) -> None:
    torch.manual_seed(1)
    batches = [
        [{name: torch.randint(3, VOCABULARY, (int(torch.randint(1, 12, ())),)).tolist() for name in EDGES[0]}] * 1
        + EDGES[step % 3 : step % 3 + 2]
        for step in range(20)
    ]
    ends, starts = [], {}
    for packed in (False, True):
        model = build(kind, packed=packed, lora=True)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        starts = {name: p.detach().clone() for name, p in trained.items()}
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, eps=1e-6)
        for rows in batches:
            trls_loss(model, rows, "sigmoid").backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        ends.append({name: p.detach() for name, p in trained.items()})
    for name, expected in ends[0].items():
        moved = float((expected - starts[name]).norm())
        assert moved > 1e-3
        assert float((ends[1][name] - expected).norm()) <= 1e-3 * moved, name


def test_checkpointed_activations_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build("llama", packed=True, lora=True)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        trls_loss(model, EDGES, "sigmoid").backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_left_cut_prompts_and_padding_on_the_left_do_not_matter() -> None:
    """A cut prompt is only a shorter one: the same pair alone and among longer ones gives the same numbers."""
    model = MODELS["llama"][1]
    alone = forward(model, [EDGES[1]]).log_probs.sum(-1)
    among = forward(model, EDGES).log_probs.sum(-1)
    assert torch.allclose(alone, among[[1, 5]], rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt2"])
def test_sft_without_padding_gives_trls_numbers(kind: str) -> None:
    """Labels in the middle of a row, at its end, and a row in which nothing counts."""
    plain, flat = build(kind, packed=False), build(kind, packed=False)
    drop_padding(flat)
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


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_flex_attention_sees_what_masks_see(window: int | None, softcap: float | None) -> None:
    """The GPU's way, uncompiled on the CPU, against one attention call per group."""
    torch.manual_seed(0)
    row = in_one_row([([5, 6, 7, 8], [[9, 10], [11]]), ([5], [[6, 7, 8], [6]])], torch.device("cpu"))
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
    assert reason in str(why_not(model))


def test_state_space_layers_are_refused() -> None:
    model = build("qwen3", packed=False)
    model.config = SimpleNamespace(model_type="qwen3", _attn_implementation="sdpa", layer_types=["linear_attention"])
    assert "linear_attention carry state" in str(why_not(model))
