"""Packed forwards give the padded ones' numbers, for every architecture that is let through."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gpt2 import GPT2Config
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from preflow.maths.logprobs import tolerance
from preflow.models.packing import KNOWN, pack, why_not
from preflow.models.precision import Precision
from preflow.models.scoring import group_logprobs, response_logprobs
from preflow.models.trl_forward import score_responses_only, share_prompts

VOCABULARY = 64
CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
}
Example = dict[str, list[int]]
tokens = st.integers(1, VOCABULARY - 1)
examples = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_ids": st.lists(tokens, min_size=1, max_size=24),
            "chosen_ids": st.lists(tokens, min_size=1, max_size=12),
            "rejected_ids": st.lists(tokens, min_size=1, max_size=12),
        }
    ),
    min_size=1,
    max_size=4,
)


def build(config: PretrainedConfig, packed: bool = False) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    if packed:
        score_responses_only(model)
        share_prompts(model)
    return model


MODELS = {kind: (build(config), build(config, packed=True)) for kind, config in CONFIGS.items()}


def forward(model: Any, rows: list[Example]) -> Any:
    batch = DataCollatorForPreference(pad_token_id=0)(rows)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    )


def test_every_known_architecture_is_tested() -> None:
    assert set(CONFIGS) == set(KNOWN)


@pytest.mark.parametrize("kind", KNOWN)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(rows=examples)
def test_packed_batches_equal_padded_ones(kind: str, rows: list[Example]) -> None:
    padded_model, packed_model = MODELS[kind]
    padded, packed = forward(padded_model, rows), forward(packed_model, rows)
    lengths = [len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    for got, expected, count in zip(packed.log_probs, padded.log_probs, lengths, strict=True):
        assert abs(float(got.sum() - expected.sum())) <= tolerance(float(expected.sum()), count)
    assert torch.allclose(packed.log_probs, padded.log_probs, atol=1e-5)
    assert torch.allclose(packed.entropy, padded.entropy, atol=1e-5)
    assert torch.allclose(packed.mean_logits, padded.mean_logits, atol=1e-5)
    assert packed.is_top1.shape == padded.is_top1.shape


@pytest.mark.parametrize("kind", KNOWN)
def test_gradients_equal(kind: str) -> None:
    rows = [
        {"prompt_ids": [5, 6, 7, 8], "chosen_ids": [9], "rejected_ids": [10, 11, 12]},
        {"prompt_ids": [3], "chosen_ids": [4, 4], "rejected_ids": [4, 4]},
    ]
    gradients = []
    for model in MODELS[kind]:
        model.zero_grad()
        values = forward(model, rows).log_probs.sum(-1)
        (values[:2] - 2 * values[2:]).sigmoid().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        assert float((gradients[1][name] - expected).norm()) <= 1e-4 * float(expected.norm()) + 1e-7, name


def test_scored_positions_alone_give_trls_numbers() -> None:
    """As SFT calls it: labels in the middle of a row, and a row in which nothing counts."""
    plain, compact = build(CONFIGS["llama"]), build(CONFIGS["llama"])
    score_responses_only(compact)
    ids = torch.tensor([[5, 6, 7, 8, 9, 0], [5, 5, 6, 6, 7, 7]])
    labels = torch.tensor([[-100, -100, 7, 8, -100, -100], [-100] * 6])
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "fused_lm_head": True}
    expected, got = plain(**call), compact(**call)
    for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
        assert torch.allclose(getattr(got, name).float(), getattr(expected, name).float(), atol=1e-6), name
    assert torch.equal(got.label_mask, expected.label_mask)
    nothing = {**call, "labels": torch.full_like(ids, -100)}
    assert torch.equal(compact(**nothing).log_probs, plain(**nothing).log_probs)


@pytest.mark.parametrize("kind", KNOWN)
def test_scored_groups_equal_plain_forwards(kind: str) -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]).eval()  # type: ignore[no-untyped-call]
    group = ([5, 6, 7], [[8, 9], [10], [8, 9, 11, 12]])
    for got, response in zip(group_logprobs(model, group, CPU), group[1], strict=True):
        expected = response_logprobs(model, (group[0], response), CPU)
        assert torch.allclose(got, expected, atol=1e-5)


def test_a_response_sees_the_prompt_and_itself_alone() -> None:
    """P = 3, C = 2, R = 1: shared 2 positions, branch 1 positions 2-3, branch 2 position 4."""
    packed = pack([([5, 6, 7], [[8, 9], [10]])], pad=0, device=torch.device("cpu"))
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 7]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.targets.tolist() == [[-100, -100, 8, 9, 10]]
    assert packed.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_changing_one_response_leaves_the_other_alone() -> None:
    model = MODELS["llama"][0]
    first = group_logprobs(model, ([5, 6], [[7, 8], [9, 10]]), CPU)
    second = group_logprobs(model, ([5, 6], [[7, 8], [30, 31]]), CPU)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1), "not among those proven"),
        (MistralConfig(**SIZES, sliding_window=4), "slides over a window"),
    ],
)
def test_what_the_mask_cannot_express_goes_the_plain_way(config: PretrainedConfig, reason: str) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    assert reason in str(why_not(model))
    group = ([1, 2, 3, 4, 5], [[6, 7], [5]])
    for got, response in zip(group_logprobs(model, group, CPU), group[1], strict=True):
        assert torch.equal(got, response_logprobs(model, (group[0], response), CPU))
