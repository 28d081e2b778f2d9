"""All of TRL's losses, by name, on stored reference values: packed and padded batches, and hand-derived numbers."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.stages import dpo
from preflow.stages.dpo import load_start, make_trainer
from preflow.stages.pairs import read_pairs
from preflow.training_settings import LossType
from tests.unit.stages.conftest import Run
from tests.unit.stages.support import COMMON, recipe_for

SMOOTH = {"exo_pair", "robust", "aot", "aot_unpaired"}


def first_losses(run: Run, out: Path, **settings: Any) -> list[float]:
    """The trainer's loss on three batches, before any step."""
    recipe = recipe_for(run.base, dpo={**COMMON, "learning_rate": 1e-3, **settings})
    spec = run.dpo(recipe=recipe)
    assert recipe.dpo is not None
    pairs = read_pairs(run.reference.file("train.parquet"))
    model = load_start(spec, recipe.dpo, choose_precision(recipe))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)  # away from the reference, where losses differ
    trainer: Any = make_trainer(spec, model, load_tokenizer(run.base, recipe), pairs, out, Silent())
    policy: Any = trainer.model
    policy.eval()
    batches = [trainer.data_collator([trainer.train_dataset[i] for i in range(b, b + 4)]) for b in (0, 4, 8)]
    with torch.no_grad():
        return [float(trainer.compute_loss(policy, batch)) for batch in batches]


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_packed_and_padded_losses_agree(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    settings = {"loss_type": loss_type, "label_smoothing": 0.1 if loss_type in SMOOTH else 0.0}
    packed = first_losses(prepared, tmp_path / "packed", **settings)
    monkeypatch.setattr(dpo, "why_not", lambda model: "not this time")
    padded = first_losses(prepared, tmp_path / "padded", **settings)
    assert packed == pytest.approx(padded, rel=1e-4)
    assert len(set(packed)) == 3


@pytest.mark.parametrize(
    "settings", [{"ld_alpha": 0.5}, {"f_divergence_type": "js_divergence"}, {"use_weighting": True}]
)
def test_variants_of_the_score_agree(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    packed = first_losses(prepared, tmp_path / "packed", **settings)
    monkeypatch.setattr(dpo, "why_not", lambda model: "not this time")
    assert packed == pytest.approx(first_losses(prepared, tmp_path / "padded", **settings), rel=1e-4)


class _Given(torch.nn.Module):
    """Stands for a model whose per-token log-probs are given: one response token per row."""

    def __init__(self, logprobs: torch.Tensor) -> None:
        super().__init__()
        self.logprobs = logprobs

    def forward(self, **_: Any) -> Any:
        zeros = torch.zeros_like(self.logprobs)
        names = {
            "entropy": zeros,
            "mean_logits": zeros,
            "is_top1": zeros.bool(),
            "log_sum_sq_probs": zeros,
            "aux_loss": None,
        }
        return type("Output", (), {"log_probs": self.logprobs, **names})()


def test_trl_gives_the_sigmoid_loss_of_known_values(prepared: Run, tmp_path: Path) -> None:
    """Log-ratios 0, 10, 20 at beta 0.1 are -log sigmoid of 0, 1, 2 (worked out in tests/unit/maths)."""
    policy = torch.tensor([[-0.5], [-10.0], [-1.0], [-0.1], [-30.0], [-21.0]])
    ids = torch.ones(6, 2, dtype=torch.long)
    batch = {
        "input_ids": ids,
        "attention_mask": ids,
        "completion_mask": torch.tensor([[0, 1]] * 6),
        "ref_chosen_logps": torch.tensor([-0.5, -10.1, -0.1]),
        "ref_rejected_logps": torch.tensor([-0.1, -20.1, -0.1]),
    }
    spec = prepared.dpo()
    assert spec.recipe.dpo is not None
    model = load_start(spec, spec.recipe.dpo, choose_precision(spec.recipe))
    pairs = read_pairs(prepared.reference.file("train.parquet"))
    trainer: Any = make_trainer(spec, model, load_tokenizer(prepared.base, spec.recipe), pairs, tmp_path, Silent())
    loss = float(trainer._compute_loss(_Given(policy), batch, return_outputs=False))
    expected = sum(math.log(1 + math.exp(-x)) for x in (0.0, 1.0, 2.0)) / 3
    assert loss == pytest.approx(expected, abs=1e-5)
