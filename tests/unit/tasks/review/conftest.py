"""One home folder with a finished run in a real database of MLflow's, made once for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.reviewed_run import PROMPTS, answer, finished_run
from tests.unit.tasks.review.commands import NAME


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def run(home: Path) -> str:
    """A run whose judge prefers the new model on all prompts."""
    texts = [(answer("dpo", number), answer("sft", number)) for number in range(PROMPTS - 1)]
    verdicts = [{"of": "answers", "first": a, "second": b, "verdicts": ["first", "second"]} for a, b in texts]
    with pytest.MonkeyPatch.context() as patch:
        enter(home, patch)
        return finished_run(home / "store", NAME, verdicts)


@pytest.fixture(autouse=True)
def same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of this folder share one home folder."""
    enter(home, monkeypatch)


@pytest.fixture(scope="module")
def in_home(home: Path) -> Iterator[None]:
    """The home folder for what a module makes once."""
    with pytest.MonkeyPatch.context() as patch:
        enter(home, patch)
        yield


def enter(home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PREFLOW_HOME", str(home))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.chdir(home)
