"""Models whose files tests of stale log-probs change."""

import shutil
from pathlib import Path

import pytest

from preflow.environment import digests_folder
from preflow.fingerprints import files
from tests.conftest import make_model
from tests.unit.logprobs.stale_models import GROUPS, IdentityFixture, StaleModelFixture, write_adapter


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and two adapters over it; tests must not write into their folder."""
    folder = tmp_path_factory.mktemp("stale")
    make_model(folder / "base")
    for seed, name in enumerate(("sft", "other")):
        write_adapter(folder / name / "model", folder / "base", seed)
    return folder


@pytest.fixture
def old_models(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the models, old enough for their digests to be remembered."""
    shutil.copytree(originals, tmp_path / "models")
    monkeypatch.setattr(files, "_YOUNG_NS", 0)  # the hardest case: everything is remembered at once
    monkeypatch.setattr(files, "_LOCAL", files._LOCAL | {"tmpfs"})
    return tmp_path / "models"


def asked_once(made: StaleModelFixture) -> StaleModelFixture:
    assert made.ask(compare=False) == len(GROUPS)
    assert list(digests_folder().glob("*.json")), "nothing is remembered, so the test would prove little"
    return made


@pytest.fixture
def stale_model(old_models: Path) -> StaleModelFixture:
    """The models, and a store that was asked once."""
    return asked_once(StaleModelFixture(old_models))


@pytest.fixture
def identity_fixture(old_models: Path) -> StaleModelFixture:
    """The same without a forward."""
    return asked_once(IdentityFixture(old_models))
