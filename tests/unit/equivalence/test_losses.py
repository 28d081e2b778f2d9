"""Each loss, its metrics and its gradients are those of TRL's own trainer: padded, with a live reference.

On a Llama with an adapter; hypothesis draws the lengths.
"""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tests.unit.equivalence.comparison import (
    DRAWN,
    LOSS_TYPES,
    assert_same_step,
    moved,
    moved_trainers,
    set_loss,
    token_outputs,
)
from tests.unit.equivalence.trainer_pairs import TrainerPair, dpo_trainers
from tests.unit.models.architectures import EDGES, Pair, batches, rows_of

#: What changes the score, the sum of losses, or how the forward runs.
VARIANTS: list[dict[str, Any]] = [
    {"ld_alpha": 0.5},
    {"f_divergence_type": "forward_kl"},
    {"f_divergence_type": "js_divergence"},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    {"use_weighting": True},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    {"gradient_checkpointing": True},
]


def test_every_loss_is_tested() -> None:
    assert len(LOSS_TYPES) == 15


@pytest.mark.parametrize(
    "loss_type", [pytest.param(loss, marks=() if loss == "sigmoid" else pytest.mark.slow) for loss in LOSS_TYPES]
)
@settings(max_examples=4, **DRAWN)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_all_losses_and_their_gradients_equal_trls(loss_type: str, rows: list[Pair]) -> None:
    trainers = moved_trainers("llama", True)
    set_loss(trainers, loss_type)
    assert_same_step(trainers, rows)


@cache
def varied_trainers(number: int) -> TrainerPair:
    return moved(dpo_trainers("llama", rows_of(EDGES, 0), Path(mkdtemp()), lora=True, **VARIANTS[number]))


@pytest.mark.parametrize("number", [0, *[pytest.param(i, marks=pytest.mark.slow) for i in range(1, len(VARIANTS))]])
@settings(max_examples=3, **DRAWN)
@example(rows=rows_of(EDGES, 0))
@example(rows=rows_of(EDGES, 0, 9))
@given(rows=batches)
def test_variants_equal_trls(number: int, rows: list[Pair]) -> None:
    assert_same_step(varied_trainers(number), rows)


def test_prompts_cut_on_the_left_equal_trls() -> None:
    """TRL's collator cuts the start of what is longer than 12 tokens; Preflow's pairs come with their prompts cut."""
    whole = rows_of([(30, 3, 3, False)], 1)[0]
    cut: Pair = {**whole, "prompt_ids": whole["prompt_ids"][-9:]}
    trainers = moved_trainers("llama", True)
    batch = DataCollatorForPreference(pad_token_id=0, max_length=12, truncation_mode="keep_end")([whole])
    assert batch["input_ids"].shape == (2, 12)
    with torch.no_grad():
        expected = token_outputs(trainers.trl, batch)["log_probs"]
        got = token_outputs(trainers.preflow, trainers.batches([cut])[1])["log_probs"]
    assert torch.allclose(got.sum(-1), expected.sum(-1), rtol=1e-5, atol=3e-5)
