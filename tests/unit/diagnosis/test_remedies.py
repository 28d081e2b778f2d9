"""A remedy is the first of several that changes the recipe, is accepted by it, and draws no new advice."""

import pytest

from preflow.config.checks.advice import usual_rates
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.measurements import RunMeasurements
from preflow.diagnosis.remedies import applied, remedy, with_fine_tuning
from tests.unit.diagnosis.runs import log, margins, pairs, recipe, run
from tests.unit.diagnosis.test_diagnose import STILL, displaced


def test_what_is_set_already_refused_or_advised_against_is_passed_over() -> None:
    plain = recipe()
    same, refused, advised = {"dpo.beta": 0.1}, {"dpo.label_smoothing": 0.2}, {"dpo.num_train_epochs": 5}
    assert remedy(plain, same, refused, advised, {"dpo.beta": 0.3}, "words") == "dpo.beta: 0.3"
    assert remedy(plain, same, refused, advised, "words") == "words"
    with pytest.raises(ValueError, match="expected words"):
        remedy(plain, same)


def test_a_change_is_applied_as_a_recipe_would_have_it() -> None:
    larger = applied(recipe(lora_r=1), {"lora_r": 16})
    assert larger is not None
    assert larger.dpo is not None
    assert larger.sft is not None
    assert (larger.dpo.lora_r, larger.dpo.lora_alpha, larger.sft.lora_r) == (16, 32.0, 16)
    alone = applied(recipe(), {"strategy": "sft"})
    assert alone is not None
    assert alone.dpo is None


def test_a_loss_keeps_its_name_and_weight_where_another_joins_it() -> None:
    dpo = recipe(loss_type="ipo", loss_weights=[2.0]).dpo
    assert dpo is not None
    assert list(with_fine_tuning(dpo)) == [{"dpo.loss_type": ["ipo", "sft"], "dpo.loss_weights": [2.0, 0.2]}]


def first(measured: RunMeasurements) -> str:
    return diagnose(measured)[0].remedy


def test_a_rate_stays_within_what_has_been_seen_to_work() -> None:
    """A model of 8B: 2e-5 is the highest without advice. At that rate, more passes are tried."""
    large = recipe(learning_rate=4e-6).model_copy(update={"model_name": "m-8B"})
    assert usual_rates(large) == (4e-6, 2e-5)
    assert first(run(settings=large, metrics={"dpo/steps": 138.0}, measured=STILL["measured"], kl=0.01)) == (
        "dpo.learning_rate: 2e-05"  # 4e-6 times the root of 1 / 0.01 would be 4e-5
    )
    highest = recipe(learning_rate=2e-5).model_copy(update={"model_name": "m-8B"})
    assert first(run(settings=highest, metrics={"dpo/steps": 138.0}, **STILL)) == "dpo.num_train_epochs: 3"
    full = recipe("full", learning_rate=1e-6).model_copy(update={"model_name": "m-7B"})
    assert first(run(settings=full, metrics={"dpo/steps": 138.0}, **STILL)) == "dpo.num_train_epochs: 3"


def test_one_step_asks_for_pairs_not_for_sixty_passes() -> None:
    """60 steps of 8 pairs; no batch is small enough to make them of one step."""
    assert "480 training pairs" in first(run(metrics={"dpo/steps": 1.0, "dpo/pairs": 8.0}, **STILL))
    limited = recipe(max_steps=12)
    assert first(run(settings=limited, metrics={"dpo/steps": 12.0}, **STILL)) == "dpo.max_steps: 60"


def test_the_next_remedy_is_named_where_the_first_is_set() -> None:
    mixed = recipe(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.2])
    assert first(displaced(mixed)) == "dpo.learning_rate: 6.7e-06"
    precise = recipe().model_copy(update={"bf16": False})
    noisy = log()
    noisy[0] |= {"rewards/chosen": 0.09}
    assert first(run(pairs(0.3 * margins()), precise, log=noisy)) == "dpo.learning_rate: 6e-05"
