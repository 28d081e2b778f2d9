"""TRL's loss on stored reference values gives numbers derived by hand (tests/unit/equivalence has all of them)."""

import ast
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.dpo.start import load_start
from preflow.dpo.trainer import make_trainer
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from tests.fixtures.prepared_run import Run


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
    """(c - r) - (ref c - ref r): (-.5+.1)-(-.5+.1)=0; (-10+30)-(-10.1+20.1)=10; (-1+21)-0=20; beta 0.1: 0, 1, 2.

    The loss is the mean of -log sigmoid of these (equation 7).
    """
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


def test_no_loss_of_trls_dpo_takes_a_margin_of_the_data_and_its_reward_trainer_does() -> None:
    """What docs/reference/formats.md says of margins; where a later TRL takes one, pairs should bring it."""

    def columns(module: str) -> set[str]:
        tree = ast.parse(Path(str(find_spec(module).origin)).read_text(encoding="utf-8"))  # type: ignore[union-attr]
        return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}

    assert "margin" in columns("trl.trainer.reward_trainer")
    assert "margin" not in columns("trl.trainer.dpo_trainer")
    assert "ref_chosen_logps" in columns("trl.trainer.dpo_trainer"), "columns are read by such names"
