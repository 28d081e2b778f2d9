"""Finished runs are found in MLflow with what their evaluations kept."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows.commands.compare import compared, show, table_rows, write
from preflow.artifacts import Artifact, build, write_json
from preflow.comparison.page import letter
from preflow.errors import ArtifactError, ConfigError, IncomparableError
from tasks.tracking.client import client
from tasks.tracking.evaluated_runs import evaluated_runs, log_comparison
from tests.unit.comparison.planted_runs import kept_run

pytestmark = pytest.mark.slow  # a database of MLflow's own is made


def finished(folder: Path, name: str, right: str, rate: float, of: str = "mine") -> str:
    """A finished pipeline run of a recipe whose result is right on the rows that are marked 1."""
    store, planted = client(), asdict(kept_run(name, right, rate=rate))

    def evaluation(out: Path) -> None:
        write_json(out / "evaluation.json", planted["evaluation"])
        write_json(out / "pairs.json", planted["pairs"])
        (out / "answers").mkdir()
        write_json(out / "answers" / "dpo.json", planted["answers"])

    artifact = build(folder / "store" / name, evaluation)
    found = store.get_experiment_by_name(of)
    experiment = found.experiment_id if found else store.create_experiment(of)
    run = store.create_run(experiment, tags={"kind": "pipeline", "mlflow.runName": name}).info.run_id
    store.log_text(run, f"name: {of}\ndpo:\n  learning_rate: {rate}\n", "recipe.yaml")
    tags = {"mlflow.parentRunId": run, "stage": "evaluate", **_tags(artifact)}
    child = store.create_run(experiment, tags=tags).info.run_id
    store.log_artifacts(child, artifact.path)
    store.set_terminated(child)
    store.set_terminated(run)
    return str(run)


def _tags(artifact: Artifact) -> dict[str, str]:
    return {"artifact_path": artifact.path, "artifact_digest": artifact.digest}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOW_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def runs(home: Path) -> list[str]:
    """Two runs, the older first."""
    return [finished(home, "old", "1" * 60 + "0" * 40, 1e-5), finished(home, "new", "1" * 75 + "0" * 25, 2e-5)]


def test_the_newest_runs_are_compared_with_the_oldest_of_them(home: Path, runs: list[str]) -> None:
    report, found = compared("mine", [], 8, None)
    assert [run.name for run in found] == ["new", "old"]
    assert report["baseline"] == runs[0]
    assert report["settings"] == ["dpo.learning_rate"]
    difference = report["runs"][0]["difference"]
    assert (difference["better"], difference["worse"]) == (15, 0)
    page, numbers = write(report, "mine", home / "out")
    assert json.loads(numbers.read_text()) == json.loads(json.dumps(report))
    log_comparison(report["groups"][0][0], [page, numbers])
    kept = {each.path for each in client().list_artifacts(runs[1], "comparison")}
    assert kept == {"comparison/comparison.html", "comparison/comparison.json"}
    shown = table_rows(report)
    assert [row["difference, points"][:5] for row in shown] == ["+15.0", "basel"]
    assert "win rate" not in shown[0], "no judge was asked"


def test_the_table_of_a_comparison_has_the_win_rates(runs: list[str]) -> None:
    report, _ = compared("mine", runs, 8, None)
    rate = {"value": 0.825, "low": 0.65, "high": 0.95}
    judged = {"judge": "endpoint j", "fit": True, "accuracy": rate, "pairs": 40, "of": "dpo over sft", "reason": ""}
    report["runs"][0] |= {"judged": {**judged, "win_rate": rate, "win_rate_lc": None}, "later": ["review 1: 0.900"]}
    new, old = table_rows(report)
    assert new["win rate"] == "0.825 [0.650, 0.950] (dpo over sft)"
    assert new["reviews and decisions"] == "review 1: 0.900"
    assert old["win rate"] == ""


def test_the_terminal_has_what_people_said_in_lines_of_their_own(
    runs: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = compared("mine", runs, 8, None)
    report["runs"][0]["later"] = ["Decision 1: version 2 refused", "Ada (declared): too early"]
    show(report, home / "comparison.html")
    printed = capsys.readouterr().out
    assert "\nA  Decision 1: version 2 refused\nA  Ada (declared): too early\n" in printed
    assert "baseline" in printed
    assert all(len(line) <= 80 for line in printed.splitlines()[:-1])
    assert len({letter(place) for place in range(60)}) == 60


def test_runs_are_named_by_the_beginning_of_their_ids(runs: list[str]) -> None:
    report, _ = compared("mine", [runs[1][:8], runs[0]], 8, runs[1][:8])
    assert report["baseline"] == runs[1]
    with pytest.raises(ConfigError, match="beginning of 0 ids"):
        evaluated_runs("mine", ["feed"], 8)
    with pytest.raises(ConfigError, match="no finished run of the recipe 'other'"):
        evaluated_runs("other", [], 8)


def test_one_run_alone_cannot_be_compared(runs: list[str]) -> None:
    with pytest.raises(IncomparableError, match="there is no other finished run"):
        compared("mine", [], 1, None)


def test_a_store_that_was_pruned_is_replaced_by_mlflows_copy_and_a_changed_file_is_refused(
    home: Path, runs: list[str]
) -> None:
    before = evaluated_runs("mine", [runs[0]], 1)
    shutil.move(home / "store" / "old", home / "elsewhere")
    assert evaluated_runs("mine", [runs[0]], 1) == before
    shutil.move(home / "elsewhere", home / "store" / "old")
    pairs = home / "store" / "old" / "pairs.json"
    text = pairs.read_text()
    pairs.write_text(text.replace("-8.0", "-9.0", 1))
    with pytest.raises(ArtifactError, match=r"pairs\.json is not what the manifest says"):
        evaluated_runs("mine", [runs[0]], 1)
    pairs.write_text(text)
