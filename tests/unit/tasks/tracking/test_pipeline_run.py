"""MLflow as the pipeline uses it, on an SQLite file."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.data.files.raw_rows import DataSource
from preflow.errors import ConfigError
from preflow.specs import ValidateSpec
from tasks.tracking import recorder
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import PipelineRun, find_run, pipeline_run
from tasks.tracking.stage_run import stage_run

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
RECIPE = Recipe.model_validate({"name": "one", "model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}})
SOURCES = ValidateSpec(preferences=(DataSource(path="/d/dpo.jsonl", digest="f" * 64),))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture(autouse=True)
def _store(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    yield
    for run in all_runs():
        client().delete_run(run.info.run_id)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    def write(out: Path) -> None:
        write_json(out / "metrics.json", {"sft/loss": 0.5})
        (out / "model").mkdir()
        (out / "model" / "adapter.bin").write_bytes(b"x" * 100)

    return build(tmp_path / "store" / "sft" / "abc", write)


def all_runs() -> list[Any]:
    store = client()
    found = store.search_runs([e.experiment_id for e in store.search_experiments()])
    return list(found)


def statuses() -> set[str]:
    return {run.info.status for run in all_runs()}


def start(flow_run: str = "f1") -> Any:
    return pipeline_run(RECIPE, SOURCES, flow_run, "one-1")


def make_dead(run_id: str, status: str = "RUNNING") -> None:
    """Let a run belong to a process that has ended."""
    client().set_tag(run_id, "process_started", "2000-01-01T00:00:00.000+00:00")
    client().update_run(run_id, status=status)


def test_a_finished_stage_is_on_the_child_and_on_the_parent(artifact: Artifact) -> None:
    with start() as run, stage_run(run, "sft", computing=False) as child:
        for step in (1, 2, 3):
            child.metrics({"sft/loss": 1 / step}, step)
        child.complete(artifact, "abc", computed=True)
    store = client()
    parent, stage = store.get_run(run.run_id), store.get_run(child.run_id)
    assert parent.info.status == stage.info.status == "FINISHED"
    assert parent.data.metrics["sft/loss"] == 0.5, "the stage's own"
    curve = [(point.step, point.value) for point in store.get_metric_history(child.run_id, "sft/loss")]
    assert curve == [(1, 1.0), (2, 0.5), (3, 1 / 3)], "the steps and nothing else"
    assert {f.path for f in store.list_artifacts(child.run_id)} == {
        "manifest.json",
        "metrics.json",
        "model",
    }
    assert parent.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    assert parent.data.params["beta"] == "0.1"


def test_memory_estimated_and_measured_is_on_the_parent_and_on_a_cached_run(artifact: Artifact) -> None:
    """It differs from run to run, so no file of the stage has it; a cached stage shows what its computation took."""
    memory = {"sft/memory_predicted_gib": 1.5, "sft/memory_measured_gib": 1.4}
    with start("f1") as first, stage_run(first, "sft", computing=False) as child:
        child.metrics({"sft/loss": 0.5, **memory}, 7)
        child.complete(artifact, "abc", computed=True)
    with start("f2") as second, stage_run(second, "sft", computing=False) as cached:
        cached.complete(artifact, "abc", computed=False)
    store = client()
    for run_id in (first.run_id, second.run_id, cached.run_id):
        metrics = store.get_run(run_id).data.metrics
        assert {name: metrics.get(name) for name in memory} == memory


def test_a_large_file_is_listed_with_its_place(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LARGEST_UPLOAD", 50)
    with start() as run, stage_run(run, "sft", computing=False) as child:
        child.complete(artifact, "abc", computed=True)
    store = client()
    assert {f.path for f in store.list_artifacts(child.run_id)} == {
        "manifest.json",
        "metrics.json",
        "large_files.json",
    }
    text = Path(store.download_artifacts(child.run_id, "large_files.json")).read_text()
    assert f"{artifact.path}/model/adapter.bin" in text


def test_an_adapter_is_whole_in_mlflow_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN: adapters whole; an adapter of rank 64 over 8B parameters has 640 MiB."""
    monkeypatch.setattr(recorder, "LARGEST_UPLOAD", 50)

    def write(out: Path) -> None:
        write_json(out / "metrics.json", {"sft/loss": 0.5})
        (out / "model").mkdir()
        (out / "model" / "adapter_model.safetensors").write_bytes(b"x" * 100)
        (out / "model" / "model-00001-of-00002.safetensors").write_bytes(b"x" * 100)

    made = build(tmp_path / "store" / "sft" / "large", write)
    with start() as run, stage_run(run, "sft", computing=False) as child:
        child.complete(made, "large", computed=True)
    found = client().list_artifacts(child.run_id, "model")
    assert [file.path for file in found] == ["model/adapter_model.safetensors"]


def test_an_unfit_set_leaves_its_report(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    (partial / "scratch").mkdir(parents=True)
    (partial / "report.json").write_text("{}")
    (partial / "scratch" / "checkpoint").write_text("large")
    with start() as run, stage_run(run, "validate", computing=False) as child:
        child.keep(partial)
    assert [file.path for file in client().list_artifacts(child.run_id)] == ["report.json"]


def test_an_unknown_run_is_refused_without_showing_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    class Store:
        def get_run(self, run_id: str) -> None:
            raise MlflowException("none", error_code=RESOURCE_DOES_NOT_EXIST)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.tracking.pipeline_run.client", Store)
        patch.setenv("MLFLOW_TRACKING_URI", "https://team:s3cret@mlflow.example:5000")
        with pytest.raises(ConfigError, match=r"MLflow at https://mlflow\.example:5000 has no run"):
            find_run("abc")


def test_a_cache_hit_names_the_run_that_computed(artifact: Artifact) -> None:
    with start("f1") as run, stage_run(run, "sft", computing=False) as first:
        first.complete(artifact, "abc", computed=True)
    with start("f2") as run, stage_run(run, "sft", computing=False) as second:
        second.complete(artifact, "abc", computed=False)
    tags = client().get_run(second.run_id).data.tags
    assert tags["cached_from"] == first.run_id
    assert not client().list_artifacts(second.run_id)


def test_a_stage_that_an_earlier_start_of_this_run_computed_is_not_cached_from_itself(artifact: Artifact) -> None:
    with start("f1") as run, stage_run(run, "sft", computing=False) as first:
        first.complete(artifact, "abc", computed=True)
        first.complete(artifact, "abc", computed=False)
    assert "cached_from" not in client().get_run(first.run_id).data.tags


def test_an_error_fails_the_run_and_a_signal_kills_it() -> None:
    with pytest.raises(ValueError, match="broken"), start() as run, stage_run(run, "sft"):
        raise ValueError("broken")
    assert statuses() == {"FAILED"}
    with pytest.raises(KeyboardInterrupt), start("f2") as other:
        raise KeyboardInterrupt
    assert client().get_run(other.run_id).info.status == "KILLED"


@pytest.mark.parametrize("status", ["RUNNING", "KILLED"])
def test_a_dead_run_of_the_same_recipe_is_reopened_with_its_stage(status: str) -> None:
    with start("f1") as first, stage_run(first, "sft", computing=False) as stage:
        stage.metrics({"sft/loss": 1.0}, 1)
    make_dead(first.run_id, status)
    make_dead(stage.run_id, status)
    with start("f2") as second, stage_run(second, "sft", computing=False) as again:
        again.metrics({"sft/loss": 1.0}, 1)
        again.metrics({"sft/loss": 0.5}, 2)
    assert (second.run_id, again.run_id) == (first.run_id, stage.run_id)
    history = client().get_metric_history(stage.run_id, "sft/loss")
    assert [m.step for m in history] == [1, 2]
    assert statuses() == {"FINISHED"}


def test_a_retry_of_the_same_flow_run_reopens_a_failed_run() -> None:
    with pytest.raises(OSError, match="disk"), start("f1") as first:
        raise OSError("disk")
    with start("f1") as second:
        pass
    assert second.run_id == first.run_id


def test_neither_a_finished_nor_a_living_run_is_reopened() -> None:
    with start("f1") as first, start("f2") as second:
        pass
    with start("f3") as third:
        pass
    assert len({first.run_id, second.run_id, third.run_id}) == 3


def test_dead_runs_of_other_recipes_are_buried() -> None:
    other = RECIPE.model_copy(update={"name": "two", "seed": 7})
    with pipeline_run(other, SOURCES, "f1", "two-1") as dead:
        pass
    make_dead(dead.run_id)
    with start("f2"):
        pass
    assert client().get_run(dead.run_id).info.status == "KILLED"


def test_runs_that_were_killed_elsewhere_are_closed_with_their_stages_and_living_ones_are_not() -> None:
    """On another machine no process can be looked for: three heartbeats of 30 s are missed, or not."""
    ended: set[str] = set()
    for name, seconds in (("silent", 100), ("alive", 80)):
        last = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        other = RECIPE.model_copy(update={"name": name})
        with (
            pipeline_run(other, SOURCES, f"flow-of-{name}", name) as run,
            stage_run(run, "sft", computing=False) as stage,
        ):
            pass
        for run_id in (run.run_id, stage.run_id):
            client().set_tag(run_id, "boot", "another")
            client().update_run(run_id, status="RUNNING")
        client().set_tag(run.run_id, "heartbeat", last)
        with pipeline_run(RECIPE, SOURCES, name, "one-1", dead=ended.update):
            pass
        expected = "KILLED" if name == "silent" else "RUNNING"
        assert {client().get_run(run_id).info.status for run_id in (run.run_id, stage.run_id)} == {expected}
    assert ended == {"flow-of-silent"}


def test_a_run_says_again_and_again_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_HEARTBEAT_SECONDS", "0.05")
    with start() as run:
        beats: set[str] = set()
        while len(beats) < 3:
            beats.add(client().get_run(run.run_id).data.tags["heartbeat"])


def test_a_deleted_experiment_is_an_error_that_says_what_to_do() -> None:
    named = RECIPE.model_copy(update={"name": "deleted"})
    with pipeline_run(named, SOURCES, "f", "d") as run:
        pass
    client().delete_experiment(run.experiment_id)
    with (
        pytest.raises(ConfigError, match="restore"),
        pipeline_run(named, SOURCES, "f", "d"),
    ):
        pass


def test_a_run_is_found_by_its_id() -> None:
    with start() as run:
        pass
    assert find_run(run.run_id) == PipelineRun(recipe="one", experiment_id=run.experiment_id, run_id=run.run_id)
    with pytest.raises(ConfigError, match="no run"):
        find_run("0" * 32)
