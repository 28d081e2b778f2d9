"""A run in which every stage is cached loads nothing that only computing needs."""

from pathlib import Path

import pytest

from tests.integration.conftest import Pipeline

#: What a hit must not load: together they are more than half of the time of a run that computes.
COMPUTING = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "great_expectations", "matplotlib")


@pytest.mark.slow
@pytest.mark.server
def test_a_cached_run_loads_nothing_that_computes(pipeline: Pipeline, recipe: Path) -> None:
    module = "tests.integration.loaded_by_fakes"
    for _ in range(2):
        done = pipeline.start(str(recipe), module=module)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count(": cached") == 6, done.stderr
    (loaded,) = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert {"prefect", "mlflow"} <= set(loaded.split())
    assert not set(COMPUTING) & set(loaded.split())
