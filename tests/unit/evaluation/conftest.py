"""An aligned model over the prepared run, and what its evaluation is asked to do."""

import pytest

from preflow.artifacts import Artifact, build
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.dpo import run_dpo
from tests.fixtures.prepared_run import Run


@pytest.fixture(scope="package")
def aligned(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("aligned")
    return build(folder / "dpo", lambda out: run_dpo(prepared.dpo(), out, Silent()))


@pytest.fixture
def spec(prepared: Run, aligned: Artifact) -> EvaluateSpec:
    return EvaluateSpec(
        recipe=prepared.recipe,
        base=prepared.base,
        data=prepared.data,
        sft=prepared.sft,
        dpo=aligned,
        reference=prepared.reference,
    )
