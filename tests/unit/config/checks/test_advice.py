"""Settings outside what is known to work are advised against, once each."""

from typing import Any

import pytest

from preflow.config import Recipe
from preflow.config.checks.advice import advice, parameters_named


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"model_name": "a-7B", "tuning": "full", "dpo": {"learning_rate": 2e-6}}, "above 1e-06"),
        ({"tuning": "full", "dpo": {"learning_rate": 2e-5}}, "a model whose name has no size: above 1e-05"),
        ({"dpo": {"learning_rate": 5e-4}}, "above 0.0002"),
        ({"dpo": {"learning_rate": 5e-7}}, "hardly moves an adapter"),
        ({"model_name": "meta-llama/Llama-3.1-8B", "dpo": {"learning_rate": 5e-5}}, "billions of parameters: above"),
        ({"model_name": "SmolLM2-135M-Instruct", "dpo": {"learning_rate": 5e-6}}, "hardly moves an adapter"),
        ({"model_name": "SmolLM2-135M-Instruct", "dpo": {"learning_rate": 5e-4}}, "above 0.0002"),
        ({"model_name": "Qwen/Qwen2.5-0.5B", "tuning": "full", "dpo": {"learning_rate": 5e-5}}, "above 1e-05"),
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
    small = {"model_name": "SmolLM2-135M-Instruct"}
    for rate in (2e-5, 1e-4, "auto"):
        assert advice(Recipe.model_validate({**small, "dpo": {"learning_rate": rate}})) == []


def test_a_models_name_has_its_size() -> None:
    assert parameters_named("HuggingFaceTB/SmolLM2-135M-Instruct") == 135e6
    assert parameters_named("meta-llama/Llama-3.1-8B") == 8e9
    assert parameters_named("Qwen2.5-0.5B") == 0.5e9
    assert parameters_named("EleutherAI/pythia-1.4b") == 1.4e9
    assert parameters_named("google/gemma-3-270m-it") == 270e6
    assert parameters_named("/models/opt-350m/") == 350e6
    assert parameters_named("Qwen2.5-7B-Instruct-1M") == 7e9, "the context's length is no size"
    assert parameters_named("/models/mine") is None
    assert parameters_named("model-4bit") is None
