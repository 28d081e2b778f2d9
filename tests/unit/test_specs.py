"""The table of stages and what is written beside it name the same specifications."""

from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

from preflow.config.validation import Dataset
from preflow.data.files.sources import resolve_sources
from preflow.fingerprints.files import json_digest
from preflow.specs import STAGES, StageSpec, ValidateSpec
from tasks.runtime import stage


def test_every_stage_of_the_table_has_its_place_in_the_types() -> None:
    specs = {info.spec for info in STAGES.values()}
    assert len(specs) == len(STAGES)
    assert set(get_args(StageSpec)) == specs
    assert set(stage.Spec.__constraints__) == specs


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_the_table_has_its_function_and_its_task(name: str) -> None:
    info = STAGES[name]
    assert callable(getattr(import_module(info.module), info.function))
    assert callable(getattr(import_module(info.tasks or f"tasks.{name}"), name))


def _identity(folder: Path, **said: Any) -> Any:
    entry = Dataset.model_validate({"path": str(folder / "p.jsonl"), **said}) if said else str(folder / "p.jsonl")
    return ValidateSpec(preferences=resolve_sources([entry])).inputs()["preferences"]


def test_what_a_recipe_says_of_a_file_is_in_the_identity_where_it_changes_rows(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"ask": "Hi", "chosen": "Hello", "rejected": "What?"}\n')
    plain = _identity(tmp_path)
    assert _identity(tmp_path, format="auto", columns={}) == plain
    columns = {"prompt": "ask", "label": None}
    different = [
        _identity(tmp_path, columns=columns), _identity(tmp_path, rows=1), _identity(tmp_path, format="ranking"), plain
    ]  # fmt: skip
    assert len({json_digest(each) for each in different}) == 4
    turned = _identity(tmp_path, columns=dict(reversed(columns.items())))
    assert json_digest(turned) == json_digest(different[0])
