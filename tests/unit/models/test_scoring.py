"""Scoring runs a prompt once for all its responses, and gives the plain forward's values for every architecture."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gpt_neox import GPTNeoXConfig
from transformers.models.llama import LlamaConfig
from trl.trainer.utils import add_fused_lm_head

from preflow.dpo.start_checks import independent_logprobs
from preflow.maths.agreement import agree
from preflow.models import scoring
from preflow.models.packed.layout import PromptResponses
from preflow.models.packed.support import PACKED, unsupported_reason
from preflow.models.precision import Precision
from preflow.models.scoring import batch_logprobs, packed_length, response_logprobs, scores
from preflow.models.trl_forward import score_responses_only
from tests.unit.models.architectures import CONFIGS, Pair, batches

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)


def build(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]


MODELS = {architecture: (build(config), build(config)) for architecture, config in CONFIGS.items()}

#: As wide as a real small model, one layer deep.
WIDE = build(LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=1,
                         num_attention_heads=9, num_key_value_heads=3, initializer_range=0.05))  # fmt: skip


def logprobs_of(model: Any, group: PromptResponses, precision: Precision) -> list[torch.Tensor]:
    """Log-probs of the responses to one prompt."""
    (values,) = scores(model, [group], precision)
    return values


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a core of its own computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_model_that_projects_every_position_is_scored_at_the_right_ones() -> None:
    """As a model from a repository of its own may, whose forward knows no ``logits_to_keep``."""
    model = build(
        GPTNeoXConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    )
    own = model.forward

    def forward(input_ids: Any, attention_mask: Any = None, use_cache: Any = None) -> Any:
        return own(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    model.forward = forward
    row = [3, 4, 5, 6], [7, 8, 9]
    whole = torch.log_softmax(forward(torch.tensor([[*row[0], *row[1]]])).logits[0].detach(), -1)
    expected = torch.stack([whole[3 + t, token] for t, token in enumerate(row[1])])
    assert torch.allclose(response_logprobs(model, row, CPU), expected, atol=1e-6)
    assert torch.allclose(independent_logprobs(model, row, CPU).float(), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", PACKED)
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(rows=batches)
def test_scores_equal_plain_forwards(architecture: str, rows: list[Pair]) -> None:
    """One group at a time, and several in a row as a GPU does it, against one plain forward per response."""
    ours, plain = MODELS[architecture]
    groups: list[PromptResponses] = [(row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])) for row in rows]
    alone, together = list(scores(ours, groups, CPU)), batch_logprobs(ours, groups, CPU)
    for (prompt, responses), one, many in zip(groups, alone, together, strict=True):
        for response, *found in zip(responses, one, many, strict=True):
            expected = response_logprobs(plain, (prompt, response), CPU)
            for got in found:
                assert got.shape == expected.shape
                assert agree(got, expected)
                assert torch.allclose(got, expected, atol=2e-5)


class SmallCard:
    """Stands for a GPU on which a forward of more than ``fits`` tokens ends in PyTorch's own error."""

    def __init__(self, fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[int] = []
        self.head_rows: list[int] = []
        own = scoring.batch_logprobs

        def on_the_gpu(model: Any, groups: list[PromptResponses], precision: Any, head_rows: int) -> Any:
            tokens = sum(packed_length(group) for group in groups)
            if tokens > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            self.tokens.append(tokens)
            self.head_rows.append(head_rows)
            return own(model, groups, CPU, head_rows)

        monkeypatch.setattr(scoring, "batch_logprobs", on_the_gpu)

    def scores(
        self, groups: list[PromptResponses], sizes: list[tuple[int, int]] | None = None
    ) -> list[list[torch.Tensor]]:
        card = Precision(torch.device("cuda"), torch.float32, torch.float32)
        return list(scores(MODELS["llama"][0], groups, card, sizes))


def test_a_gpu_halves_its_batches_when_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every response gets its value, in order; a prompt whose responses do not fit together runs for each of them."""
    groups: list[PromptResponses] = [([1, 5, 6 + n], [[9] * (3 + n), [10, 11 + n] * 40]) for n in range(8)]
    groups.append(([1, 7], [[8 + n % 3] * 200 for n in range(3)]))  # 601 places, 201 for each response alone
    expected = [logprobs_of(MODELS["llama"][0], group, CPU) for group in groups]
    monkeypatch.setattr(scoring, "GPU_BATCHES", [(1000, 250), (500, 125), (250, 62)])
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 1000)
    card = SmallCard(300, monkeypatch)
    for got, wanted in zip(card.scores(groups), expected, strict=True):
        for one, other in zip(got, wanted, strict=True):
            assert torch.allclose(one, other, atol=2e-5)
    assert max(card.tokens) <= 250
    assert set(card.head_rows) == {62}
    assert sum(card.tokens) == sum(map(packed_length, groups)) + 2  # the prompt of two tokens ran twice more


def test_what_did_not_fit_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is filled in many calls; the later ones begin with batches that fit."""
    groups: list[PromptResponses] = [([1, 5, 6 + n], [[9] * 40, [10, 11 + n] * 20]) for n in range(4)]
    sizes = [(1000, 250), (500, 125), (250, 62)]
    SmallCard(300, monkeypatch).scores(groups, sizes)
    assert sizes == [(250, 62)]


def test_memory_that_no_batch_is_small_enough_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        SmallCard(3, monkeypatch).scores([([1, 5, 6], [[9, 9, 9]])])


def test_changing_one_response_leaves_the_others_bits_alone() -> None:
    model = MODELS["llama"][0]
    first = logprobs_of(model, ([5, 6], [[7, 8], [9, 10]]), CPU)
    second = logprobs_of(model, ([5, 6], [[7, 8], [30, 31]]), CPU)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 16, 40])
def test_bits_do_not_depend_on_the_other_response_in_wide_models(length: int) -> None:
    """Matrix kernels are chosen by shape: narrow products must not take others than wide ones."""
    response, prompt = list(range(5, 5 + length)), [9, 8, 7]
    (alone,) = logprobs_of(WIDE, (prompt, [response]), CPU)
    for other in (1, 4, 17, 120):
        first, _ = logprobs_of(WIDE, (prompt, [response, list(range(other))]), CPU)
        _, second = logprobs_of(WIDE, (prompt, [list(range(other)), response]), CPU)
        assert torch.equal(first, alone)
        assert torch.equal(second, alone)


def test_what_a_row_cannot_express_goes_the_plain_way() -> None:
    config = GPTNeoXConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    model = build(config)
    assert "not among those proven" in str(unsupported_reason(model))
    group = ([1, 2, 3, 4, 5], [[6, 7], [5]])
    for got, response in zip(logprobs_of(model, group, CPU), group[1], strict=True):
        assert torch.equal(got, response_logprobs(model, (group[0], response), CPU))


def test_scored_positions_alone_give_trls_numbers() -> None:
    """As SFT calls it: labels in the middle of a row, and a row in which nothing counts."""
    plain, compact = (build(CONFIGS["llama"]) for _ in range(2))
    for model in (plain, compact):
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
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
