"""Settings outside what is known to work are advised against, once each."""

from typing import Any

import pytest

from preflow.config import Recipe
from preflow.config.advice import advice


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"tuning": "full", "dpo": {"learning_rate": 2e-6}}, "above 1e-6"),
        ({"dpo": {"learning_rate": 2e-5}}, "above 1e-5"),
        ({"dpo": {"learning_rate": 5e-7}}, "hardly moves an adapter"),
        ({"dpo": {"beta": 0.05}}, "outside 0.1 to 2"),
        ({"dpo": {"beta": 3}}, "outside 0.1 to 2"),
        ({"dpo": {"num_train_epochs": 5}}, "beyond about 4"),
        ({"dpo": {"warmup_ratio": 0.0}}, "dpo has no warm-up"),
        ({"sft": {"warmup_ratio": 0.0}}, "sft has no warm-up"),
        ({"sft": {"lr_scheduler_type": "constant"}}, "sft has no warm-up"),
    ],
)
def test_advice_outside_what_is_known_to_work(values: dict[str, Any], part: str) -> None:
    warnings = advice(Recipe.model_validate(values))
    assert len(warnings) == 1
    assert part in warnings[0]


def test_advice_is_silent_inside_what_is_known_to_work() -> None:
    assert advice(Recipe.model_validate({"dpo": {"learning_rate": 5e-6, "beta": 0.1}})) == []
    assert advice(Recipe.model_validate({"tuning": "full"})) == []
