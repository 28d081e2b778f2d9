"""The table of stages and what is written beside it name the same specifications."""

from importlib import import_module
from typing import get_args

import pytest

from preflow.specs import STAGES, StageSpec
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
    assert callable(getattr(import_module(f"tasks.{name}"), name))
