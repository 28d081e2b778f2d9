"""A small run's artifacts on the tiny model: data, SFT model, reference; made once, never written to by tests."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.environment import digests_folder
from preflow.fingerprints import files
from preflow.models.resolve import ModelRef
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from tests.conftest import make_model
from tests.unit.logprobs.stale_bench import GROUPS, Bench, write_adapter
from tests.unit.support import recipe_for, write_data


@dataclass(frozen=True)
class Run:
    """What the stages before DPO made."""

    folder: Path
    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact
    reference: Artifact

    def dpo(self, **changes: object) -> DpoSpec:
        """The DPO stage's specification."""
        parts = {name: getattr(self, name) for name in ("recipe", "base", "data", "sft", "reference")}
        return DpoSpec.model_validate({**parts, **changes})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny: ModelRef) -> Run:
    """The run's artifacts."""
    folder = tmp_path_factory.mktemp("run")
    before = os.environ.get("PREFLOW_HOME")
    os.environ["PREFLOW_HOME"] = str(folder / "home")
    recipe = recipe_for(tiny)
    data = build(folder / "data", write_data)
    sft = build(folder / "sft", lambda out: run_sft(SftSpec(recipe=recipe, base=tiny, data=data), out, Silent()))
    asked = ReferenceSpec(recipe=recipe, base=tiny, data=data, sft=sft)
    reference = build(folder / "reference", lambda out: run_reference(asked, out, Silent()))
    if before is None:
        del os.environ["PREFLOW_HOME"]
    else:
        os.environ["PREFLOW_HOME"] = before
    return Run(folder, recipe, tiny, data, sft, reference)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and two adapters over it; tests must not write into their folder."""
    folder = tmp_path_factory.mktemp("stale")
    make_model(folder / "base")
    for seed, name in enumerate(("sft", "other")):
        write_adapter(folder / name / "model", folder / "base", seed)
    return folder


@pytest.fixture
def bench(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The models, old enough for their digests to be remembered, asked once."""
    shutil.copytree(originals, tmp_path / "models")
    monkeypatch.setattr(files, "_YOUNG_NS", 0)  # the hardest case: everything is remembered at once
    monkeypatch.setattr(files, "_LOCAL", files._LOCAL | {"tmpfs"})
    made = Bench(tmp_path / "models")
    assert made.ask(compare=False) == len(GROUPS)
    assert list(digests_folder().glob("*.json")), "nothing is remembered, so the test would prove little"
    return made
