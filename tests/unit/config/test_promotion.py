"""When a model becomes champion: settings with defaults, bounds, and no part in what is computed."""

from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.specs import DpoSpec, EvaluateSpec, LengthsSpec, ReferenceSpec, SftSpec
from tests.unit.config.recipe_files import TWO_STAGE, load, refused


def test_without_a_section_models_are_registered_under_the_recipes_name(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "name": "support answers"})
    assert recipe.registered_model == "support answers"
    settings = recipe.promotion
    assert (settings.primary, settings.min_gain, settings.alpha) == ("preference_accuracy", 0.0, 0.05)
    assert (settings.guards.kl, settings.guards.length_ratio, settings.guards.perplexity_ratio) == (10.0, 1.3, 1.1)
    assert settings.approval == "none"


def test_recipes_may_compete_under_one_name(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "promotion": {"model_name": "support", "approval": "required"}})
    assert recipe.registered_model == "support"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model_name": "a/b"}, "promotion.model_name"),  # MLflow takes no slash and no colon
        ({"model_name": "a:b"}, "promotion.model_name"),
        ({"alpha": 0.0}, "promotion.alpha"),
        ({"alpha": 0.6}, "promotion.alpha"),
        ({"min_gain": -0.1}, "promotion.min_gain"),
        ({"primary": "reward"}, "promotion.primary"),
        ({"approval": "maybe"}, "promotion.approval"),
        ({"guards": {"kl": 0}}, "promotion.guards.kl"),
        ({"guards": {"length_ratio": 0.9}}, "promotion.guards.length_ratio"),
        ({"guards": {"perplexity": 1.1}}, "promotion.guards.perplexity"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, values: dict[str, Any], named: str) -> None:
    assert named in refused(tmp_path, {**TWO_STAGE, "promotion": values})


def test_no_stage_is_computed_again_for_another_promotion() -> None:
    plain: dict[str, Any] = {"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}}
    other = {**plain, "promotion": {"alpha": 0.01, "guards": {"kl": 2}, "model_name": "x"}}
    base = ModelRef(name="m", path="/m", digest="d")
    made = Artifact(path="/a", digest="d", bytes=1)
    for spec in (LengthsSpec, SftSpec, ReferenceSpec, DpoSpec, EvaluateSpec):
        given: dict[str, Any] = {"base": base, "data": made}
        given |= {"reference": made} if "reference" in spec.model_fields else {}
        options = [spec(recipe=Recipe.model_validate(each), **given).options() for each in (plain, other)]
        assert options[0] == options[1]
