"""The pipeline around the stages, in processes of its own: caching, kills, tracking, errors."""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from tests.integration.conftest import Pipeline

Start = Callable[..., CompletedProcess[str]]
#: What a hit must not load: together they are more than half of the time of a run that computes.
COMPUTING = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "great_expectations", "matplotlib"}
STAGES = ["validate", "lengths", "sft", "reference", "dpo", "evaluate"]


def by_stage(runs: list[Any]) -> dict[str, Any]:
    return {run.data.tags["stage"]: run for run in runs if "stage" in run.data.tags}


def parents(runs: list[Any]) -> list[Any]:
    return [run for run in runs if run.data.tags.get("kind") == "pipeline"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_finished_one_is_cached(
    pipeline: Pipeline, recipe: Path, start: Start, prefect_server: str, subtests: pytest.Subtests
) -> None:
    """One home folder through its life; each part begins with what the parts before it left, and fails by its name."""
    with subtests.test("a killed run goes on in the same MLflow run"):
        a_killed_run_goes_on(pipeline, recipe, start)
    pipeline.server = prefect_server
    with subtests.test("it left everything in MLflow"):
        a_run_leaves_everything_in_mlflow(pipeline)
    with subtests.test("a finished run is cached, metrics and all, and loads nothing that computes"):
        a_finished_run_is_cached(pipeline, start)
    with subtests.test("a later setting keeps earlier stages"):
        a_later_setting_keeps_earlier_stages(pipeline, start)
    with subtests.test("damage is computed again"):
        damage_is_computed_again(pipeline, start)
    with subtests.test("killed runs of other recipes are marked as killed"):
        killed_runs_of_other_recipes_are_marked(pipeline, recipe, start)


def a_killed_run_goes_on(pipeline: Pipeline, recipe: Path, start: Start) -> None:
    killed = pipeline.start(str(recipe), FAKE_KILL="dpo")
    assert killed.returncode == -signal.SIGKILL
    assert {run.info.status for run in parents(pipeline.runs())} == {"RUNNING"}
    start()
    runs = pipeline.runs()
    assert pipeline.calls == ["validate", "lengths", "sft", "reference", "dpo", "dpo", "evaluate"]
    assert len(parents(runs)) == 1
    assert sorted(by_stage(runs)) == sorted(STAGES)
    assert len(runs) == 1 + len(STAGES)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(pipeline.steps(by_stage(runs)["dpo"].info.run_id, "dpo/grad_norm")) == [1, 2, 3, 4, 5, 6]


def a_run_leaves_everything_in_mlflow(pipeline: Pipeline) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{pipeline.home}/mlflow/mlflow.db")
    runs = pipeline.runs()
    parent = parents(runs)[0]
    tags = parent.data.tags
    assert {"recipe_digest", "data_digest", "base_model_digest", "prefect_flow_run_id"} <= set(tags)
    assert tags["strategy"] == "two-stage"
    files = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert files == {"recipe.yaml", "summary.md", "diagnosis.json", "model_card.md", "registered_model"}
    assert "## Diagnosis" in tags["mlflow.note.content"]
    assert {entry.dataset.name for entry in parent.inputs.dataset_inputs} == {
        "sft.jsonl",
        "dpo.jsonl",
    }
    stages = by_stage(runs)
    assert {entry.path for entry in client.list_artifacts(stages["evaluate"].info.run_id)} == {
        "figures",
        "evaluation.json",
        "samples.json",
        "specification.json",
        "pairs.json",
        "metrics.json",
        "manifest.json",
    }
    assert pipeline.steps(stages["sft"].info.run_id, "sft/grad_norm") == [1, 2, 3, 4, 5, 6]


def a_finished_run_is_cached(pipeline: Pipeline, start: Start) -> None:
    dpo = by_stage(pipeline.runs())["dpo"]
    done = start(module="tests.integration.loaded_by_fakes")
    assert len(pipeline.calls) == 7
    assert done.stderr.count(": cached") == 6, done.stderr
    (loaded,) = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert {"prefect", "mlflow"} <= set(loaded.split())
    assert not COMPUTING & set(loaded.split())
    assert "models side by side" in done.stdout
    assert "flows.ui mlflow --run" in done.stdout
    assert "Traceback" not in done.stderr
    assert "dpo: cached" in done.stderr
    assert "advice: only 2 pairs are held out" in " ".join(done.stderr.split())
    newest = parents(pipeline.runs())[-1]
    children = [run for run in pipeline.runs() if run.data.tags.get("mlflow.parentRunId") == newest.info.run_id]
    assert {run.data.tags["stage"] for run in children} == set(STAGES)
    assert {run.info.status for run in children} == {"FINISHED"}
    cached = by_stage(children)["dpo"]
    assert cached.data.tags["cached_from"] == dpo.info.run_id
    assert cached.data.metrics["dpo/loss"] == dpo.data.metrics["dpo/loss"]
    assert newest.data.metrics["eval/preference_accuracy"] == 0.7
    assert newest.data.metrics["dpo/loss"] == dpo.data.metrics["dpo/loss"]


@pytest.mark.nightly  # Ctrl-C ends a run and its server on the same way each time
def test_a_run_that_is_asked_to_end_takes_its_server_along(pipeline: Pipeline, recipe: Path) -> None:
    ended = pipeline.start(str(recipe), FAKE_TERMINATE="dpo")
    assert ended.returncode == 128 + signal.SIGTERM
    assert {run.info.status for run in pipeline.runs()} == {"FINISHED", "KILLED"}  # the stages before, and the rest
    home = str(pipeline.home)
    left = [p for p in psutil.process_iter() if readable(p).get("PREFLOW_HOME") == home]
    assert not psutil.wait_procs(left, timeout=20)[1]


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_order_and_the_next_start_goes_on_with_it(pipeline: Pipeline, recipe: Path) -> None:
    """It reaches every process of the terminal, the embedded server too, unless that is kept from it."""
    ended = pipeline.start(str(recipe), FAKE_INTERRUPT="dpo")
    assert ended.returncode == 128 + signal.SIGINT, ended.stderr
    assert "stopped; the same command goes on from here" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {run.info.status for run in pipeline.runs()} == {"FINISHED", "KILLED"}
    left = [p for p in psutil.process_iter() if readable(p).get("PREFLOW_HOME") == str(pipeline.home)]
    assert not psutil.wait_procs(left, timeout=20)[1]
    again = pipeline.start(str(recipe))
    assert again.returncode == 0, again.stderr
    assert len(parents(pipeline.runs())) == 1
    assert {run.info.status for run in pipeline.runs()} == {"FINISHED"}
    with sqlite3.connect(pipeline.home / "prefect" / "prefect.db") as database:
        states = database.execute("SELECT state_type FROM flow_run ORDER BY created").fetchall()
    assert states == [("CRASHED",), ("COMPLETED",)]


def readable(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
        return environment
    except (psutil.Error, OSError):
        return {}


def a_later_setting_keeps_earlier_stages(pipeline: Pipeline, start: Start) -> None:
    done = start("--set", "dpo.beta=0.2", "--set", "sft.logging_steps=5")
    assert pipeline.calls[7:] == ["dpo", "evaluate"]
    assert "sft: cached" in done.stderr
    newest = parents(pipeline.runs())[-1]
    assert newest.data.params["beta"] == "0.2"
    assert newest.data.params["dpo_learning_rate"] == "5e-06"


def damage_is_computed_again(pipeline: Pipeline, start: Start) -> None:
    store = pipeline.home / "store"
    (artifact,) = (store / "sft").glob("*[0-9a-f]/")
    (artifact / "model" / "weights.txt").write_text("damaged")
    for folder in (store / "reference").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    shutil.rmtree(pipeline.home / "prefect" / "storage")  # records whose value is gone serve nothing
    start()
    assert pipeline.calls[9:] == ["sft", "reference"]
    assert "damaged" not in (artifact / "model" / "weights.txt").read_text()


def killed_runs_of_other_recipes_are_marked(pipeline: Pipeline, recipe: Path, start: Start) -> None:
    pipeline.start(str(recipe), "--set", "name=other", "--set", "seed=1", FAKE_KILL="sft")
    assert "RUNNING" in {run.info.status for run in pipeline.runs()}
    start()
    statuses = [run.info.status for run in pipeline.runs()]
    assert "RUNNING" not in statuses
    assert statuses.count("KILLED") == 2  # the pipeline run and its SFT stage


@pytest.mark.slow
def test_pairs_that_do_not_fit_stop_the_run_before_anything_is_trained(served: Pipeline, recipe: Path) -> None:
    done = served.start(str(recipe), FAKE_LENGTHS="none fits")
    assert done.returncode != 0
    assert "dpo: no training pair is left" in done.stderr
    assert served.calls == ["validate", "lengths"]


@pytest.mark.slow
def test_tune_chooses_the_rate_that_an_automatic_run_then_takes(served: Pipeline, recipe: Path) -> None:
    auto = (str(recipe), "--set", "dpo.learning_rate=auto")
    chosen = served.start(*auto, FAKE_COMMAND="tune")
    assert "dpo.learning_rate: 3e-05" in chosen.stdout, chosen.stderr
    assert served.calls == ["validate", "lengths", "sft", "reference", "tune"]
    done = served.start(*auto)
    assert served.calls == ["validate", "lengths", "sft", "reference", "tune", "dpo", "evaluate"], done.stderr
    assert "the range test chose the learning rate 3e-05" in " ".join(done.stdout.split())
    newest = parents(served.runs())[-1]
    assert newest.data.metrics["tune/learning_rate"] == 3e-5


@pytest.mark.slow
def test_a_wrong_recipe_ends_in_one_clear_text(tmp_path: Path, recipe: Path) -> None:
    pipeline = Pipeline(tmp_path)
    done = pipeline.start(str(recipe), "--set", "dpo.betta=0.2")
    assert done.returncode == 2
    assert "did you mean 'beta'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (pipeline.home / "mlflow").exists()


@pytest.mark.slow
def test_a_missing_data_file_is_named_before_anything_starts(tmp_path: Path, recipe: Path) -> None:
    pipeline = Pipeline(tmp_path)
    (recipe.parent / "dpo.jsonl").unlink()
    done = pipeline.start(str(recipe))
    assert done.returncode == 2
    assert "dpo.jsonl" in done.stderr
    assert not (pipeline.home / "mlflow").exists()
