"""RLOO on broken numbers: rewards, loss, gradients, weights, logits; each is one error, and none is kept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.rloo_trainer import RLOOTrainer

from preflow.artifacts import SCRATCH, Artifact
from preflow.errors import NonFiniteLossError
from preflow.observer import Silent
from preflow.stages.rlhf import rloo as stage
from preflow.stages.rlhf.rloo import run_rloo
from tests.fixtures.prepared_run import Run
from tests.unit.stages.rlhf.rloo_support import Worth, spec_of


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("every", [0, 1], ids=["in the next step", "in a measurement"])
def test_a_learning_rate_that_ruins_the_policy_is_one_error(
    prepared: Run, judge: Artifact, tmp_path: Path, every: int
) -> None:
    """Weights of 1e30 are numbers, their products are none: nothing could be drawn from the logits of step 2."""
    dpo = {"dataset": "-", "kl_limit": 1e3, "eval_steps": every, "eval_pairs": 2}
    spec = spec_of(prepared, judge, rloo={"learning_rate": 1e30}, dpo=dpo)
    with pytest.raises(NonFiniteLossError, match=r"logits are NaN or infinite after step 1.*Lower rloo.learning_rate"):
        run_rloo(spec, tmp_path / "out", Silent())


class SpoilWeights(TrainerCallback):
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        with torch.no_grad():
            _trained(kwargs["model"]).fill_(math.nan)


def _trained(model: Any) -> torch.Tensor:
    found: torch.Tensor = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_weights_that_are_no_numbers_are_one_error_and_in_no_checkpoint(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Callable[..., Any] = vars(stage)["make_rloo_trainer"]

    def spoilt(*given: Any) -> Any:
        trainer = own(*given)
        trainer.add_callback(SpoilWeights())
        return trainer

    monkeypatch.setattr(stage, "make_rloo_trainer", spoilt)
    spec = spec_of(prepared, judge, dpo={"dataset": "-", "save_steps": 1, "eval_pairs": 2})
    with pytest.raises(NonFiniteLossError, match="rloo: weights are NaN or infinite after step 1"):
        run_rloo(spec, tmp_path / "out", Silent())
    assert not list((tmp_path / "out" / SCRATCH).glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_stops_before_the_weights_change(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The root of 0 is 0, and its derivative infinite, which times 0 is NaN."""

    def loss(self: RLOOTrainer, model: Any, inputs: Any) -> torch.Tensor:
        nothing = _trained(model).sum() * 0
        return nothing * math.nan if broken == "loss" else nothing.sqrt()

    monkeypatch.setattr(RLOOTrainer, "_compute_loss", loss)
    with pytest.raises(NonFiniteLossError, match=f"rloo: the {broken} is nan at step 1, .* weights are unchanged"):
        run_rloo(spec_of(prepared, judge), tmp_path / "out", Silent())


@pytest.mark.slow
def test_a_reward_that_is_no_number_is_an_error_where_trl_would_leave_the_answer_out(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first step on; those before, of held-out answers, are numbers."""

    class Overflowing(Worth):
        calls = 0

        def __call__(self, answered: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
            self.calls += 1
            return super().__call__(answered) + (np.inf if self.calls > 1 else 0.0)

    monkeypatch.setattr(stage, "AnswerRewards", Overflowing)
    with pytest.raises(NonFiniteLossError, match="rloo: the reward of an answer is inf"):
        run_rloo(spec_of(prepared, judge), tmp_path / "out", Silent())
