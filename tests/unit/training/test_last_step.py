"""A step that is too large leaves no model behind, though its own loss and gradient were numbers."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from preflow.artifacts import SCRATCH
from preflow.config.training import DpoSettings, SftSettings
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_demonstrations
from preflow.data.validated import load_demonstrations
from preflow.dpo.start import load_start
from preflow.dpo.trainer import make_trainer
from preflow.errors import NonFiniteLossError, RuinedModelError
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.adapters import new_adapter
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages import dpo, sft
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from preflow.training import numerical_checks
from preflow.training.checkpoints import resume_point
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for


class Exploding(TrainerCallback):
    """Gives the last step another learning rate."""

    def __init__(self, trainer: Any, rate: float) -> None:
        self.trainer, self.rate = trainer, rate

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps - 1:
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = self.rate


def run_with_last_rate(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, stage: str, rate: float) -> None:
    """A stage of five steps without held-out evaluation, with checkpoints after the second and the fourth."""
    module: Any = dpo if stage == "dpo" else sft
    own = module.run_training

    def exploding(trainer: Any, *rest: Any, **options: Any) -> Any:
        trainer.add_callback(Exploding(trainer, rate))
        return own(trainer, *rest, **options)

    monkeypatch.setattr(module, "run_training", exploding)
    evaluations: dict[str, Any] = {"eval_pairs": 0} if stage == "dpo" else {}
    recipe = recipe_for(run.base, **{stage: {**COMMON, "learning_rate": 1e-3, "max_steps": 5, **evaluations}})
    if stage == "dpo":
        run_dpo(run.dpo(recipe=recipe), out, Silent())
    else:
        run_sft(SftSpec(recipe=recipe, base=run.base, data=run.data), out, Silent())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (math.nan, r"weights are NaN or infinite after step 5, .* Lower the learning rate \(0\.001\)"),
        (1e19, r"the model gives its rows (nan|inf|-?inf) nats per token after step 5"),
    ],
)
def test_a_last_step_that_explodes_is_no_success(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, rate: float, said: str
) -> None:
    with pytest.raises(NonFiniteLossError, match=f"{stage}: .*{said}"):
        run_with_last_rate(prepared, tmp_path, monkeypatch, stage, rate)
    assert not (tmp_path / "model").exists()
    checkpoint = str(resume_point(tmp_path / SCRATCH))
    assert checkpoint.endswith("checkpoint-4"), "the ruined weights were written"
    assert all(torch.isfinite(t).all() for t in load_file(Path(checkpoint) / "adapter_model.safetensors").values())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_model_that_ends_worse_than_guessing_is_no_success(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """ln 300 is 5.7. (A random model has too little to lose; test_real_training.py ruins another.)"""
    monkeypatch.setattr(numerical_checks.NumericalChecks, "_nats", lambda *_: (5.75, 5.1))
    with pytest.raises(RuinedModelError, match=rf"{stage}: .* 5\.8 nats per token \(before training 5\.1; .* 5\.7\)"):
        run_with_last_rate(prepared, tmp_path, monkeypatch, stage, 1e-3)
    checkpoint = str(resume_point(tmp_path / SCRATCH))
    assert checkpoint.endswith("checkpoint-4")
    for number, harmless in enumerate([(5.65, 5.1), (5.75, 5.6)]):  # still better than guessing; no better before
        monkeypatch.setattr(numerical_checks.NumericalChecks, "_nats", lambda *_, harmless=harmless: harmless)
        run_with_last_rate(prepared, tmp_path / str(number), monkeypatch, stage, 1e-3)


def test_nats_per_token_are_those_of_chosen_responses(prepared: Run, tmp_path: Path) -> None:
    """At step 0 the policy is the reference, so both numbers are the mean of the stored values of chosen tokens."""
    spec = prepared.dpo()
    pairs = read_pairs(prepared.reference.file("train.parquet"))
    model = load_start(spec, cast(DpoSettings, spec.recipe.dpo), choose_precision(spec.recipe))
    trainer: Any = make_trainer(spec, model, load_tokenizer(prepared.base, spec.recipe), pairs, tmp_path, Silent())
    values = [value for pair in pairs[:3] for value in pair.ref_chosen]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    assert trainer._nats(trainer.model, batch) == pytest.approx([-sum(values) / len(values)] * 2, rel=1e-5)


@pytest.mark.slow
def test_the_same_demonstrations_are_measured_before_and_after(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 300 tokens ln V is 5.7: where the first rows take 4.1 nats and others 6.7, no step has done that.

    But where the first rows themselves come to take 6.7, the steps have.
    """
    first: list[Any] = []

    def nats(_: object, __: object, batch: Any, after: float = 4.1) -> float:
        first.append(batch["input_ids"]) if not first else None
        same = batch["input_ids"].shape == first[0].shape and bool((batch["input_ids"] == first[0]).all())
        return after if same else 6.7

    monkeypatch.setattr(numerical_checks.NumericalChecks, "_nats_now", nats)
    run_with_last_rate(prepared, tmp_path / "other rows", monkeypatch, "sft", 1e-3)
    first.clear()
    values = iter([4.1, 6.7])
    monkeypatch.setattr(numerical_checks.NumericalChecks, "_nats_now", lambda *_: next(values))
    with pytest.raises(RuinedModelError, match=r"sft: .* 6\.7 nats per token \(before training 4\.1; .* 5\.7\)"):
        run_with_last_rate(prepared, tmp_path / "ruined", monkeypatch, "sft", 1e-3)


def test_nats_at_the_start_are_the_loss_of_the_first_demonstrations(prepared: Run, tmp_path: Path) -> None:
    """The trainer's own loss is the mean over the same tokens."""
    spec = SftSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data)
    settings, tokenizer = cast(SftSettings, spec.recipe.sft), load_tokenizer(prepared.base, spec.recipe)
    renderer = Renderer(tokenizer, spec.recipe.template)
    rows, _ = tokenize_demonstrations(load_demonstrations(prepared.data, "train"), renderer, 256, "drop")
    model = load_policy(prepared.base, None, spec.recipe, choose_precision(spec.recipe), trainable=True)
    adapted = new_adapter(model, settings, seed=0)
    trainer: Any = sft._trainer(spec, adapted, tokenizer, rows, tmp_path, Silent())
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    loss = trainer.compute_loss(trainer.model.train(), dict(batch))
    numbers, nats = trainer._first
    assert numbers == [0, 1, 2]
    assert nats == pytest.approx(float(loss.detach()), rel=1e-5)
    assert trainer._nats(trainer.model, batch) == pytest.approx((nats, nats), rel=1e-5)


@pytest.mark.slow
def test_a_last_step_of_the_usual_size_is_one(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with_last_rate(prepared, tmp_path, monkeypatch, "sft", 1e-3)
    assert (tmp_path / "model").is_dir()
