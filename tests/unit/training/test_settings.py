"""Every setting of a training stage reaches the trainer: none is lost on the way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from preflow.config.training import DpoSettings, SftSettings, TrainingSettings
from preflow.dpo.start import load_start
from preflow.dpo.trainer import as_dataset, make_trainer
from preflow.logprobs.scored_pairs import PairTable, ScoredPair, read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.training.arguments import training_arguments
from tests.fixtures.prepared_run import Run
from tests.unit.support import recipe_for

#: Values that are no defaults, by setting; where the trainer calls a setting otherwise, its name there.
SHARED: dict[str, Any] = {
    "num_train_epochs": 3.0,
    "max_steps": 7,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 5,
    "learning_rate": 3e-6,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.25,
    "weight_decay": 0.125,
    "max_grad_norm": 0.5,
    "optim": "adafactor",
    "gradient_checkpointing": True,
    "logging_steps": 4,
    "save_steps": 9,
}
TRL: dict[str, Any] = {
    "beta": 0.7,
    "loss_type": ("robust", "sigmoid"),
    "loss_weights": (0.25, 0.75),
    "label_smoothing": 0.2,
    "f_divergence_type": "alpha_divergence",
    "f_alpha_divergence_coef": 0.9,
    "discopop_tau": 0.3,
    "ld_alpha": 0.6,
    "use_weighting": True,
    "disable_dropout": False,
}
NAMES = {"warmup_ratio": "warmup_steps"}
#: Settings that are used elsewhere, each with the test that would miss it.
ELSEWHERE = {
    "dataset": "tests/unit/flows/commands/test_plan.py",
    "eval_dataset": "tests/unit/expectations",
    "eval_split": "tests/unit/expectations",
    "validation_split": "tests/unit/expectations",
    "max_seq_length": "tests/unit/data/tokens/test_tokenize.py",
    "overlong_response": "tests/unit/data/tokens/test_tokenize.py",
    "train_on": "tests/unit/data/tokens/test_tokenize.py",
    "lora_r": "here",
    "lora_alpha": "here",
    "lora_dropout": "here",
    "lora_target_modules": "here",
    "init_lora_weights": "tests/unit/models/test_adapters.py",
    "range_test_rates": "tests/unit/stages/test_tune.py",
    "range_test_steps": "tests/unit/stages/test_tune.py",
    "range_test_pairs": "tests/unit/stages/test_tune.py",
    "range_test_kl": "tests/unit/stages/test_tune.py",
    "cpu_kernels": "tests/unit/models/cpu/test_switch.py",
    "auto_find_batch_size": "tests/unit/training/test_batching.py",
    "batching": "tests/unit/training/test_batching.py",
    "max_tokens_per_batch": "tests/unit/training/test_batching.py",
    "eval_steps": "tests/unit/dpo/test_early_stopping.py",
    "eval_pairs": "tests/unit/dpo/test_early_stopping.py",
    "kl_limit": "tests/unit/dpo/test_early_stopping.py",
    "early_stop_patience": "tests/unit/dpo/test_early_stopping.py",
    "proof_sample": "tests/unit/dpo/test_start_checks.py",
}


def plain(value: Any) -> Any:
    value = getattr(value, "value", value)
    return tuple(value) if isinstance(value, list) else value


def test_no_setting_is_forgotten_here() -> None:
    assert set(DpoSettings.model_fields) == {*SHARED, *TRL, *ELSEWHERE} - {"train_on"}  # of demonstrations alone
    assert set(SftSettings.model_fields) <= {*SHARED, *ELSEWHERE}
    assert all((Path(__file__).parents[3] / place).exists() for place in ELSEWHERE.values() if place != "here")
    for name, value in {**SHARED, **TRL}.items():
        assert DpoSettings.model_fields[name].default != value, f"{name}: the value here is the default"


def test_every_setting_of_dpo_reaches_trl(prepared: Run, tmp_path: Path) -> None:
    section = {"dataset": "-", "max_seq_length": 256, **SHARED, **TRL}
    recipe = recipe_for(prepared.base, dpo=section, sft={"dataset": "-"}, seed=123)
    spec = prepared.dpo(recipe=recipe)
    assert recipe.dpo is not None
    pairs = read_pairs(spec.reference.file("train.parquet"))
    policy = load_start(spec, recipe.dpo, choose_precision(recipe))
    trainer = make_trainer(spec, policy, load_tokenizer(spec.base, recipe), pairs, tmp_path, Silent())
    got = {name: plain(getattr(trainer.args, NAMES.get(name, name))) for name in {**SHARED, **TRL}}
    assert got == {**SHARED, **TRL}
    assert (trainer.args.seed, trainer.args.data_seed) == (123, 123)
    assert (trainer.beta, trainer.ld_alpha, trainer.use_weighting) == (0.7, 0.6, True)


def test_every_shared_setting_reaches_the_trainer_of_sft(prepared: Run, tmp_path: Path) -> None:
    recipe = recipe_for(prepared.base, sft={"dataset": "-", **SHARED}, seed=123)
    assert isinstance(recipe.sft, TrainingSettings)
    given = training_arguments(recipe, recipe.sft, choose_precision(recipe), tmp_path)
    assert {name: given[NAMES.get(name, name)] for name in SHARED} == SHARED
    assert (given["seed"], given["data_seed"]) == (123, 123)


def test_the_adapter_is_as_the_recipe_says(prepared: Run) -> None:
    sized = {"lora_r": 2, "lora_alpha": 10, "lora_dropout": 0.25, "lora_target_modules": ["q_proj", "down_proj"]}
    recipe = recipe_for(prepared.base, strategy="dpo", sft=None, dpo={"dataset": "-", **sized}, lora_r=2)
    assert recipe.dpo is not None
    policy = load_start(prepared.dpo(recipe=recipe, sft=None), recipe.dpo, choose_precision(recipe))
    assert isinstance(policy, PeftModel)
    lora: Any = policy.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (2, 10, 0.25)
    assert lora.target_modules == {"q_proj", "down_proj"}


@pytest.mark.parametrize("ld_alpha", [None, 0.25])
def test_the_reference_is_weighted_beyond_the_shorter_response(ld_alpha: float | None) -> None:
    """By hand: chosen has 3 tokens of -1 nat, rejected 1 of -2; LD-DPO counts two of chosen's by a quarter."""
    pair = ScoredPair([1], [2, 3, 4], [5], [-1.0, -1.0, -1.0], [-2.0], "p:1")
    row = as_dataset(PairTable.of([pair]), ld_alpha)[0]
    assert row["ref_chosen_logps"] == pytest.approx(-3.0 if ld_alpha is None else -1.5)
    assert row["ref_rejected_logps"] == pytest.approx(-2.0)


@pytest.mark.parametrize("disabled", [True, False])
def test_dropout_that_attention_holds_as_a_number_is_switched_off_too(
    prepared: Run, tmp_path: Path, disabled: bool
) -> None:
    """TRL sees dropout layers alone; where any dropout is at work, a policy that is its reference begins elsewhere."""
    recipe = recipe_for(prepared.base, dpo={"dataset": "-", "disable_dropout": disabled})
    spec = prepared.dpo(recipe=recipe)
    assert recipe.dpo is not None
    pairs = read_pairs(spec.reference.file("train.parquet"))
    policy = load_start(spec, recipe.dpo, choose_precision(recipe))
    layers = [module for module in policy.modules() if hasattr(module, "attention_dropout")]
    for layer in layers:
        layer.attention_dropout = 0.5
    trainer = make_trainer(spec, policy, load_tokenizer(spec.base, recipe), pairs, tmp_path, Silent())
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()  # type: ignore[union-attr]
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, batch))
    assert (loss == pytest.approx(0.693147, abs=1e-6)) == disabled
    assert layers


@pytest.mark.parametrize(
    "changes", [{"ld_alpha": 0.25}, {"f_divergence_type": "js_divergence"}, {"use_weighting": True}]
)
def test_variants_start_where_their_own_formula_says(prepared: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Policy equal to reference: LD-DPO and f-DPO start at ln 2; WPO weights it by the policy's likelihood, below."""
    recipe = recipe_for(prepared.base, dpo={"dataset": "-", "learning_rate": 1e-3, **changes})
    spec = prepared.dpo(recipe=recipe)
    assert recipe.dpo is not None
    pairs = read_pairs(spec.reference.file("train.parquet"))
    policy = load_start(spec, recipe.dpo, choose_precision(recipe))
    trainer = make_trainer(spec, policy, load_tokenizer(spec.base, recipe), pairs, tmp_path, Silent())
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, batch))
    if "use_weighting" in changes:
        assert 0 < loss < 0.6
    else:
        assert loss == pytest.approx(0.693147, abs=1e-5)
