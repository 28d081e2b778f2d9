"""Versions that were registered before the home folder was moved are promoted, rolled back and loaded in it."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from preflow.environment import models_folder
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.verification.check import Check
from tasks.promotion import compare
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import make_experiment
from tasks.tracking.registry.checks import verify_version
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.versions import read_model
from tests.fixtures.real_versions import RealVersions, real

__all__ = ["real"]  # a fixture
pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "Where is order 3?"}], "max_tokens": 6}


@pytest.fixture
def base(real: RealVersions) -> ModelRef:
    """A base in the home folder, as the packaged model's is."""
    shutil.copytree(real.prepared.base.path, models_folder() / "tiny")
    return resolve_model(real.recipe(model_name=str(models_folder() / "tiny")), Silent())


@pytest.fixture
def moved(real: RealVersions, base: ModelRef, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder after a champion, its predecessor and a challenger were registered, and it was moved."""
    real.folder = home / "store" / "dpo"
    for number in (1, 2):
        real.crown(real.dpo(number, base=base))
    real.dpo(3, base=base)
    home.rename(tmp_path / "moved")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow's client sets it
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "moved"))
    return tmp_path / "moved"


def answer(real: RealVersions, **places: str) -> str:
    loaded = mlflow.pyfunc.load_model(f"models:/{real.name}@champion", model_config=places or None)
    return str(loaded.predict(QUESTION)["choices"][0]["message"]["content"])


def test_a_version_of_before_is_promoted_rolled_back_verified_and_loaded_in_a_moved_home(
    real: RealVersions, moved: Path, home: Path
) -> None:
    base = str(moved / "models" / "tiny")
    (champion, challenger) = (read_model(real.name).aliased(alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    draft = compare.fn(real.recipe(model_name=base), [])
    assert (draft.champion, draft.chosen) == (real.place(champion), real.place(challenger))
    decision = take(draft.model_copy(update={"outcome": "promoted"}), make_experiment(client(), real.name))
    assert decision.chosen == real.place(challenger)
    assert answer(real, base=base)
    roll_back(real.name, None, "Ada", "wrong answers")
    whole = verify_version(real.name, champion, Check("run", "ok"), champion.artifact_digest)
    assert [(each.name, each.state) for each in whole.all() if each.state != "ok"] == []
    with pytest.raises(FileNotFoundError, match=r"models/tiny is no folder: give the model's weights as load_model"):
        answer(real)
    assert not home.exists(), "nothing was written where the home folder was"


def test_a_version_that_is_registered_after_the_move_has_its_files_in_the_moved_home(
    real: RealVersions, moved: Path, home: Path
) -> None:
    real.folder = moved / "store" / "dpo"
    made = real.dpo(4, base=resolve_model(real.recipe(model_name=str(moved / "models" / "tiny")), Silent()))
    assert (moved / "mlflow" / "artifacts" / made.run_id / "artifacts" / "registered_model" / "MLmodel").is_file()
    assert not home.exists()
