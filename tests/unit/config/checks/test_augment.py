"""What a recipe needs for new pairs."""

from pathlib import Path
from typing import Any

import pytest

from preflow.config import Recipe
from preflow.config.checks.augment import require_augmentable
from preflow.config.loading import load_recipe
from preflow.errors import ConfigError

JUDGE = {"kind": "function", "model": "a:b"}


def recipe(strategy: str = "two-stage", **settings: Any) -> Recipe:
    sections = {stage: {"dataset": "d"} for stage in Recipe.stages[strategy]}
    return Recipe.model_validate({"strategy": strategy, "model_name": "m", **sections, **settings})


def test_a_judge_of_either_section_will_do() -> None:
    require_augmentable(recipe(augment={"judge": JUDGE}))
    require_augmentable(recipe(evaluation={"judge": JUDGE}))
    require_augmentable(recipe("dpo", augment={"judge": JUDGE, "policy": "base"}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (recipe(), "no judge is named"),
        (recipe("sft", augment={"judge": JUDGE}), "runs no DPO stage"),
        (recipe("dpo", augment={"judge": JUDGE, "policy": "sft"}), "runs no SFT stage"),
    ],
)
def test_what_is_missing_is_named(given: Recipe, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_augmentable(given)


def test_prompts_are_the_training_pairs_or_files_of_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a"}\n')
    file = tmp_path / "r.yaml"
    for text, expected in (("train", None), ("asked.jsonl", (str(tmp_path / "asked.jsonl"),))):
        file.write_text(f"model_name: m\nsft: {{dataset: d}}\ndpo: {{dataset: d}}\naugment: {{prompts: {text}}}\n")
        assert load_recipe(file).augment.prompts == expected
