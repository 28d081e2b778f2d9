"""Tiny random models of every architecture whose packed forward is proven, and rows of drawn lengths."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
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
from trl.trainer.dpo_trainer import DataCollatorForPreference

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
#: Kinds that no layout is proven for: one like those above, and one whose layers carry a state through the row.
PADDED: dict[str, PretrainedConfig] = {
    "gpt_neox": GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    ),
    "mamba": MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.2, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip


class Pair(TypedDict):
    """Token ids of a prompt and of both responses."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


#: Tokens of prompt, chosen and rejected, and whether both responses are the same.
Lengths = tuple[int, int, int, bool]
#: Nothing shared but the last token, and one-token responses; identical ones; a prompt much longer; a long response.
EDGES: list[Lengths] = [(1, 1, 1, False), (3, 2, 2, True), (40, 1, 2, False), (2, 30, 1, False)]
lengths = st.tuples(st.integers(1, 40), st.integers(1, 14), st.integers(1, 14), st.booleans())


def rows_of(shapes: list[Lengths], seed: int, common: int = 0) -> list[Pair]:
    """Pairs of random tokens. A last one is always there, since a batch of identical responses has no gradient.

    Args:
        shapes: Tokens of prompt, chosen and rejected, and whether the responses are the same.
        seed: Of the tokens.
        common: Tokens more, the same ones, at the beginning of every prompt.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    rows, system = [], tokens(common)
    for prompt, chosen, rejected, same in [*shapes, (4, 3, 5, False)]:
        row = Pair(prompt_ids=[*system, *tokens(prompt)], chosen_ids=tokens(chosen), rejected_ids=tokens(rejected))
        rows.append({**row, "rejected_ids": row["chosen_ids"]} if same else row)
    return rows


#: Batches of pairs.
batches = st.builds(
    rows_of, st.lists(lengths, min_size=1, max_size=4), st.integers(0, 2**16), st.sampled_from([0, 3, 20])
)


def model_of(architecture: str, *, lora: bool) -> Any:
    """A random model, the same one every time; with an adapter of rank 4 that does nothing yet, where asked for."""
    torch.manual_seed(0)
    config = copy.deepcopy({**CONFIGS, **PADDED}[architecture])  # TRL writes its pad token into it
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    if not lora:
        return model
    modules = ["c_attn", "c_proj", "c_fc"] if architecture == "gpt2" else "all-linear"
    return get_peft_model(model.requires_grad_(False), LoraConfig(r=4, target_modules=modules))


def forward(model: Any, rows: Sequence[Mapping[str, list[int]]]) -> Any:
    """TRL's call of a model with its fused head, on padded pairs."""
    batch = DataCollatorForPreference(pad_token_id=0)(list(rows))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return model(**given, labels=labels, use_cache=False, fused_lm_head=True)


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """Its trainable parameters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def move(model: Any) -> None:
    """Move everything that trains away from where it is, the same way every time."""
    generator = torch.Generator().manual_seed(1)
    for parameter in trained(model).values():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
