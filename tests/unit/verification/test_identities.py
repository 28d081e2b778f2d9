"""Identities computed anew from what a run recorded: an edit of the record, of the recipe or of an input is named."""

from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.files.raw_rows import DataSource
from preflow.fingerprints.files import json_digest
from preflow.specs import StageSpec, ValidateSpec
from preflow.verification.identities import specifications, wrong_identity, wrong_parts

BASE = "b" * 64


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {"beta": 0.1}, **changes})


def written(folder: Path, file: str, text: str) -> Artifact:
    def write(out: Path) -> None:
        (out / file).write_text(text)

    return build(folder, write)


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    def artifact(name: str) -> Artifact:
        return written(tmp_path / name, "preferences.eval.jsonl", name)

    return {name: artifact(name) for name in ("validate", "sft", "reference", "dpo", "evaluate")}


def recorded(stage: str, spec: StageSpec) -> dict[str, Any]:
    given = {"stage": stage, "inputs": spec.inputs(), "options": spec.options()}
    return {**given, "code": {"a": "1"}, "versions": {"torch": "2"}, "precision": "cpu"}


def test_an_edit_of_the_recorded_specification_gives_another_identity(made: dict[str, Artifact]) -> None:
    found = recorded("dpo", specifications(recipe(), BASE, made)["dpo"])
    identity = json_digest(found)
    assert wrong_identity(found, identity) == ""
    found["versions"]["torch"] = "3"
    assert wrong_identity(found, identity).endswith(f"the identity is {identity}")
    assert wrong_identity("{", identity) == "the recorded specification cannot be read"


@pytest.mark.parametrize("stage", ["lengths", "sft", "reference", "dpo", "evaluate"])
def test_every_stage_of_a_run_is_rebuilt_from_its_recipe_and_artifacts(made: dict[str, Artifact], stage: str) -> None:
    spec = specifications(recipe(), BASE, made)[stage]
    assert wrong_parts(recorded(stage, spec), spec, []) == []
    other = specifications(recipe(), "c" * 64, made)[stage]
    (wrong,) = wrong_parts(recorded(stage, spec), other, [])
    assert wrong.startswith(f"inputs.base is recorded as {BASE}, expected ccc")


def test_another_setting_and_another_input_are_named(made: dict[str, Artifact]) -> None:
    found = recorded("dpo", specifications(recipe(), BASE, made)["dpo"])
    other = specifications(recipe(dpo={"beta": 0.3}), BASE, {**made, "sft": made["dpo"]})["dpo"]
    assert [each.partition(" is ")[0] for each in wrong_parts(found, other, [])] == ["options.dpo", "inputs.sft"]


def test_a_setting_that_came_after_the_run_is_no_change_and_one_that_was_edited_is(made: dict[str, Artifact]) -> None:
    found = recorded("dpo", specifications(recipe(), BASE, made)["dpo"])
    spec = specifications(recipe(), BASE, made)["dpo"]
    del found["options"]["dpo"]["weight_decay"]
    later = next(name for name in found["options"] if name != "dpo")
    del found["options"][later]
    assert wrong_parts(found, spec, []) == []
    found["options"]["dpo"]["beta"] = 0.2
    (wrong,) = wrong_parts(found, spec, [])
    assert wrong.startswith("options.dpo is recorded as")


def test_a_rate_that_a_range_test_chose_counts(made: dict[str, Artifact], tmp_path: Path) -> None:
    choice = written(tmp_path / "tune", "choice.json", '{"learning_rate": 3e-5}')
    asked = recipe(dpo={"learning_rate": "auto"})
    spec = specifications(asked, BASE, {**made, "tune": choice})["dpo"]
    assert spec.options()["dpo"]["learning_rate"] == 3e-5
    given = specifications(recipe(dpo={"learning_rate": 3e-5}), BASE, made)["dpo"]
    assert wrong_parts(recorded("dpo", spec), given, []) == []


def test_files_of_rows_that_validation_read_are_those_that_the_run_recorded(made: dict[str, Artifact]) -> None:
    source = DataSource(path="/d/pairs.jsonl", digest="f" * 64)
    found = recorded("validate", ValidateSpec.of(recipe(), preferences=(source,)))
    spec = specifications(recipe(), BASE, made)["validate"]
    assert wrong_parts(found, spec, [("/d/pairs.jsonl", "f" * 64)]) == []
    (wrong,) = wrong_parts(found, spec, [("/d/pairs.jsonl", "e" * 64)])
    assert wrong.startswith("inputs have the files")
