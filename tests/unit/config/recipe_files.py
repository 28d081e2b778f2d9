"""Recipes as tests write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.config import Recipe
from preflow.config.loading import load_recipe
from preflow.errors import ConfigError

TWO_STAGE = {"model_name": "m", "sft": {"dataset": "d.jsonl"}, "dpo": {"dataset": "p.jsonl"}}


def load(tmp_path: Path, values: dict[str, Any], **overrides: Any) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    return load_recipe(file, overrides)


def refused(tmp_path: Path, values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, values)
    return str(caught.value)
