"""MLflow is away for a while, or for good: training goes on, and its record is delivered once, in order."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.data.files.raw_rows import DataSource
from preflow.errors import TrackingError
from preflow.specs import ValidateSpec
from tasks.tracking import delivery
from tasks.tracking.client import client
from tasks.tracking.delivery import deliver_left_behind
from tasks.tracking.outbox import outboxes_folder
from tasks.tracking.pipeline_run import PipelineRun, pipeline_run
from tasks.tracking.stage_run import stage_run
from tests.fixtures.mlflow_server import Server, module_server, server

__all__ = ["module_server", "server"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.server]
SOURCES = ValidateSpec(preferences=(DataSource(path="/d/dpo.jsonl", digest="f" * 64),))


class Said(list[str]):
    """Messages for the user."""

    def __call__(self, message: str, *, warning: bool = False) -> None:
        self.append(message)


@contextmanager
def started(name: str, said: Said) -> Iterator[PipelineRun]:
    recipe = Recipe.model_validate({"name": name, "model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}})
    with pipeline_run(recipe, SOURCES, None, f"{name}-1", said) as run:
        yield run


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    def write(out: Path) -> None:
        write_json(out / "metrics.json", {"sft/loss": 0.5, "sft/tokens": 7.0})

    return build(tmp_path / "store" / "sft" / "abc", write)


def train(run: PipelineRun, artifact: Artifact, server: Server) -> None:
    """SFT, in the midst of which the server goes, and DPO, which begins without it."""
    with stage_run(run, "sft", computing=False) as sft:
        for step in (1, 2, 3, 4, 5, 6):
            if step == 4:
                delivery.delivery_of(run.run_id).settle()
                server.stop()
            sft.metrics({"sft/loss": 1 / step}, step)
            sft.flush()
        sft.complete(artifact, run.run_id, computed=True)
    with stage_run(run, "dpo", computing=False) as dpo:
        dpo.metrics({"dpo/loss": 0.25}, 1)


def children(run: PipelineRun) -> dict[str, Any]:
    found = client().search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert len({child.data.tags["stage"] for child in found}) == len(found)
    return {child.data.tags["stage"]: child for child in found}


def is_whole(run: PipelineRun) -> None:
    """Each step once and in order, the files, the final metrics, and how all ended."""
    stages = children(run)
    history = client().get_metric_history(stages["sft"].info.run_id, "sft/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (1, 2, 3, 4, 5, 6)]
    assert [m.step for m in client().get_metric_history(stages["sft"].info.run_id, "sft/tokens")] == [6]
    assert [m.step for m in client().get_metric_history(stages["dpo"].info.run_id, "dpo/loss")] == [1]
    assert {file.path for file in client().list_artifacts(stages["sft"].info.run_id)} == {
        "manifest.json",
        "metrics.json",
    }
    parent = client().get_run(run.run_id)
    assert parent.data.metrics == {"sft/loss": 0.5, "sft/tokens": 7.0}
    assert {parent.info.status, stages["sft"].info.status, stages["dpo"].info.status} == {"FINISHED"}
    assert not (outboxes_folder() / run.run_id).exists(), "nothing waits"


def test_an_outage_in_the_midst_of_training_costs_nothing(server: Server, artifact: Artifact) -> None:
    said = Said()
    with started("outage", said) as run:
        train(run, artifact, server)
        assert delivery.delivery_of(run.run_id).settle() > 0, "the record waits"
        (message,) = said
        assert f"MLflow at {server.address} does not answer since" in message
        server.start()
    is_whole(run)
    assert "MLflow answers again" in said[-1]


def test_a_run_ends_without_mlflow_and_the_next_start_delivers_it(
    server: Server, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLOW_MLFLOW_PATIENCE", "0")
    said = Said()
    with started("away", said) as run:
        train(run, artifact, server)
    assert "stayed away" in said[-1]
    server.start()
    with started("next", said):
        is_whole(run)
    assert any(f"entries of MLflow run {run.run_id} delivered" in message for message in said)


@pytest.mark.timeout(60)
def test_a_store_of_files_that_is_away_while_the_server_answers_ends_the_waiting(
    server: Server, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats arrive all the time; they would begin the patience anew, for ever."""
    monkeypatch.setenv("PREFLOW_MLFLOW_PATIENCE", "1")
    monkeypatch.setenv("PREFLOW_HEARTBEAT_SECONDS", "0.01")
    said = Said()
    with started("files", said) as run, stage_run(run, "sft", computing=False) as sft:
        sft.metrics({"sft/loss": 1.0}, 1)
        server.lose = lambda path: "mlflow-artifacts" in path
        sft.complete(artifact, run.run_id, computed=True)
    assert "stayed away" in said[-1]
    assert not any("answers again" in message for message in said), "no entry has arrived"
    server.lose = lambda path: False
    assert deliver_left_behind(said) == 0
    (stage,) = children(run).values()
    assert {file.path for file in client().list_artifacts(stage.info.run_id)} == {"manifest.json", "metrics.json"}


def test_what_arrived_though_the_answer_was_lost_is_not_repeated(server: Server, artifact: Artifact) -> None:
    lost: set[str] = set()

    def first(path: str) -> bool:
        """The first request of each kind after the start is answered by an error although it was carried out."""
        new = path not in lost and path.rpartition("/")[2] in ("log-batch", "create", "update")
        lost.add(path)
        return new

    said = Said()
    with started("lost", said) as run:
        server.lose = first
        train(run, artifact, server)
        server.start()
    is_whole(run)
    assert len(lost) >= 3


def test_a_record_that_waits_for_another_server_stays(
    server: Server, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFLOW_MLFLOW_PATIENCE", "0")
    said = Said()
    with started("other", said) as run:
        train(run, artifact, server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert deliver_left_behind(said) > 0
    assert f"are for MLflow at {server.address}, not http://127.0.0.1:9" in said[-1]
    assert (outboxes_folder() / run.run_id / "run.json").exists()


def test_a_deleted_run_ends_no_training(server: Server, artifact: Artifact) -> None:
    said = Said()
    with started("deleted", said) as run, stage_run(run, "sft", computing=False) as stage:
        client().delete_run(stage.run_id)
        stage.metrics({"sft/loss": 1.0}, 1)
    assert "a part of this run's record cannot go to MLflow" in said[0]
    assert client().get_run(run.run_id).info.status == "FINISHED"


def test_a_server_that_is_not_there_is_one_sentence_before_anything_starts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("://", "://alice:S3cretPw@"))
    before = dict(os.environ)
    with pytest.raises(TrackingError, match=r"does not answer: .*refused") as caught, started("never", Said()):
        pass
    assert "S3cretPw" not in str(caught.value)
    assert dict(os.environ) == before
    assert not outboxes_folder().exists()


def test_a_wrong_login_is_one_sentence_and_a_right_one_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.login = ("alice", "S3cretPw")
    with (
        pytest.raises(TrackingError, match=r"does not permit this: .*401.*MLFLOW_TRACKING_USERNAME"),
        started("login", Said()),
    ):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "S3cretPw")
    with started("login", Said()):
        pass


def test_a_place_of_artifacts_that_cannot_be_written_ends_the_start(server: Server) -> None:
    server.lose = lambda path: "artifacts" in path
    with pytest.raises(TrackingError, match="does not take a run's files"), started("full", Said()):
        pass
    experiment = client().get_experiment_by_name("full")
    assert [run.info.status for run in client().search_runs([experiment.experiment_id])] == ["FAILED"]
