"""What the pairs teach, or do not: words and remedies go with the interval that was measured."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.finding import RunFinding
from preflow.diagnosis.measurements import RunMeasurements
from tests.unit.diagnosis.runs import STEPS, evaluation, log, margins, pairs, recipe, run
from tests.unit.diagnosis.test_diagnose import chance, no_preference, reversed_labels


def with_accuracy(value: float, low: float, high: float, count: int = 300) -> RunFinding:
    measured = chance(count)
    report = evaluation(measured.pairs or pairs(margins()))
    report["models"]["dpo"]["reward_accuracy"] = {"value": value, "low": low, "high": high}
    (found,) = diagnose(replace(measured, evaluation=report))
    return found


def test_an_interval_that_reaches_far_above_chance_is_of_too_few_pairs() -> None:
    """0.62 [0.49, 0.73] of 300 pairs, several of a prompt: 300 x (2.8016 / 1.96 x 0.12 / 0.12)^2 = 613."""
    found = with_accuracy(0.62, 0.49, 0.73)
    assert found.name == "too_few_pairs"
    assert found.remedy.startswith("613 held-out pairs, on which an accuracy of 0.62")
    assert with_accuracy(0.5, 0.44, 0.56).name == "too_few_pairs"
    assert with_accuracy(0.5, 0.46, 0.54).name == "not_learnable"


def test_labels_the_other_way_round_have_words_of_their_own() -> None:
    (files,) = diagnose(reversed_labels())
    assert files.name == "labels_reversed"
    assert "one set" in files.what
    falling = log(**{"rewards/accuracies": np.linspace(0.5, 0.1, STEPS)})
    (training,) = diagnose(reversed_labels(log=falling, settings=recipe(loss_type="apo_down")))
    assert "the wrong way" in training.what
    assert training.remedy == "dpo.loss_type: sigmoid"


@pytest.mark.parametrize(("beta", "change"), [(0.1, "dpo.beta: 0.3"), (1.0, "dpo.beta: 2"), (3.0, "dpo.learning_rate")])
def test_beta_rises_or_stays(beta: float, change: str) -> None:
    measured = no_preference()
    (found,) = diagnose(replace(measured, recipe=recipe(beta=beta)))
    assert found.remedy.startswith(change)


def judged(low: float, high: float) -> RunMeasurements:
    return run(judge={"win_rate": {"value": (low + high) / 2, "low": low, "high": high}})


def test_a_judge_that_prefers_the_reference_counts() -> None:
    (found,) = diagnose(judged(0.3, 0.44))
    assert found.name == "reward_without_preference"
    assert "loses against its reference" in found.what
    assert "win rate 0.370 [0.300, 0.440]" in found.evidence
    assert diagnose(judged(0.4, 0.52)) == []
    assert diagnose(run(judge={"win_rate": None, "reason": "unfit"})) == []


@pytest.mark.parametrize(
    ("sft", "change"),
    [
        ({"num_train_epochs": 1}, "sft.num_train_epochs: 2 with the chosen"),
        ({"num_train_epochs": 3}, "chosen responses that the model itself samples"),
        ({"max_steps": 40}, "sft.max_steps: 80 with the chosen"),
    ],
)
def test_more_fine_tuning_is_proposed_where_there_was_little(sft: dict[str, Any], change: str) -> None:
    settings = recipe()
    assert settings.sft is not None
    settings = settings.model_copy(update={"sft": settings.sft.model_copy(update=sft)})
    (found,) = diagnose(run(settings=settings, log=log(entropy=0.3)))
    assert found.name == "off_policy"
    assert found.remedy.startswith(change)
