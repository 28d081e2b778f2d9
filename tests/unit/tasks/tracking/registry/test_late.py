"""The registry is away, or a model's files are: a finished training is finished all the same."""

import shutil
from pathlib import Path

import pytest

from preflow.artifacts import build
from preflow.data.files.raw_rows import DataSource
from preflow.specs import ValidateSpec
from tasks.tracking.delivery import deliver_left_behind
from tasks.tracking.outbox import outboxes_folder
from tasks.tracking.pipeline_run import pipeline_run, register
from tasks.tracking.registry.package import Candidate
from tasks.tracking.registry.versions import CHALLENGER, find, read_model
from tests.fixtures.mlflow_server import Server, module_server, server
from tests.fixtures.prepared_run import Run

__all__ = ["module_server", "server"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.server]
SOURCES = ValidateSpec(preferences=(DataSource(path="/d/dpo.jsonl", digest="f" * 64),))


@pytest.fixture
def said() -> list[str]:
    return []


def candidate(prepared: Run, name: str, folder: Path) -> Candidate:
    def write(out: Path) -> None:
        shutil.copytree(prepared.sft.path, out, dirs_exist_ok=True)

    made = build(folder / "sft", write)
    return Candidate(
        name=name, stage="sft", artifact=made, recipe=prepared.recipe, base=prepared.base, description="Made by SFT."
    )


def test_a_model_is_registered_when_mlflow_is_back(
    server: Server, prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("PREFLOW_MLFLOW_PATIENCE", "0")
    late = candidate(prepared, "late", tmp_path)
    with pipeline_run(prepared.recipe, SOURCES, None, "late-1", lambda text, warning=False: said.append(text)) as run:
        server.stop()
        register(run, late)
    assert "stayed away" in said[-1]
    assert find("late", late.artifact.digest) is None
    server.start()
    assert deliver_left_behind(lambda text, warning=False: said.append(text)) == 0
    found = read_model("late")
    assert found.aliases == {CHALLENGER: 1}
    assert found.versions[0].run_id == run.run_id
    assert found.versions[0] == find("late", late.artifact.digest)


def test_a_model_whose_files_went_meanwhile_keeps_nothing_else_waiting(
    server: Server, prepared: Run, tmp_path: Path, said: list[str]
) -> None:
    gone = candidate(prepared, "gone", tmp_path)
    shutil.rmtree(gone.artifact.path)
    with pipeline_run(prepared.recipe, SOURCES, None, "gone-1", lambda text, warning=False: said.append(text)) as run:
        register(run, gone)
    assert any("a part of this run's record cannot go to MLflow" in text for text in said)
    assert not (outboxes_folder() / run.run_id).exists(), "nothing waits"
