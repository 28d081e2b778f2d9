"""Runs that cannot be read are named and left out of a comparison; another recipe's champion may be the baseline."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.commands.compare import _baseline, compared
from preflow.errors import ArtifactError, ConfigError, IncomparableError, PromotionError
from tasks.tracking import evaluated_runs
from tasks.tracking.client import client
from tasks.tracking.registry.versions import CHAMPION
from tests.unit.tasks.tracking.test_evaluated_runs import finished

pytestmark = pytest.mark.slow  # a database of MLflow's own is made
OLD, NEW, BAD = "1" * 60 + "0" * 40, "1" * 75 + "0" * 25, "1" * 10 + "0" * 90


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def runs(folder: Path) -> dict[str, str]:
    """Three runs by name, the oldest first."""
    shares = {"old": OLD, "bad": BAD, "new": NEW}
    return {name: finished(folder, name, right, 1e-5) for name, right in shares.items()}


def champion(folder: Path) -> str:
    """The run of another recipe that made the champion of ``mine``; right on as many rows as the old one."""
    run = finished(folder, "theirs", OLD, 2e-5, of="theirs")
    client().create_registered_model("mine")
    client().create_model_version("mine", "file:///1", run)
    client().set_registered_model_alias("mine", CHAMPION, "1")
    return run


def test_the_champion_of_another_recipe_is_the_baseline(folder: Path, runs: dict[str, str]) -> None:
    run = champion(folder)
    settings = SimpleNamespace(name="mine", promotion=SimpleNamespace(model_name=None))
    report, _ = compared("mine", [], 8, _baseline("champion", settings))
    assert report["baseline"] == run
    by_name = {each["name"]: each["difference"] for each in report["runs"]}
    assert by_name["theirs"] is None
    assert {name: (each["better"], each["worse"]) for name, each in by_name.items() if each} == {
        "new": (15, 0),
        "bad": (0, 50),
        "old": (0, 0),
    }


def test_a_run_with_a_damaged_file_is_named_and_the_others_are_compared(folder: Path, runs: dict[str, str]) -> None:
    pairs = folder / "store" / "bad" / "pairs.json"
    pairs.write_text(pairs.read_text().replace("-8.0", "-9.0", 1))
    for asked in ([], [*runs.values()]):
        report, _ = compared("mine", asked, 8, None)
        assert {each["name"] for each in report["runs"]} == {"old", "new"}
        (left_out,) = report["left_out"]
        assert left_out["name"] == "bad"
        assert "pairs.json is not what the manifest says" in left_out["reason"]
    with pytest.raises(ArtifactError, match=r"pairs\.json is not what the manifest says"):
        compared("mine", [], 8, runs["bad"])


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "has no recipe.yaml in MLflow any more"), ("name: [mine", "in MLflow cannot be read"), ("5", "be read")],
    ids=["gone", "cut off", "no settings"],
)
def test_a_run_whose_recipe_is_gone_or_cannot_be_read_is_named(
    folder: Path, runs: dict[str, str], text: str | None, said: str
) -> None:
    (file,) = folder.rglob(f"{runs['bad']}/artifacts/recipe.yaml")
    file.unlink()
    if text is not None:
        file.write_text(text)
    report, _ = compared("mine", [], 8, None)
    (left_out,) = report["left_out"]
    assert left_out["name"] == "bad"
    assert said in left_out["reason"]


def test_a_run_whose_artifact_is_gone_everywhere_is_named(folder: Path, runs: dict[str, str]) -> None:
    shutil.rmtree(folder / "store" / "bad")
    for copy in folder.rglob("*/artifacts/pairs.json"):
        if '"source": "bad.jsonl:0"' in copy.read_text():
            copy.unlink()
    report, _ = compared("mine", [], 8, None)
    assert [each["name"] for each in report["left_out"]] == ["bad"]


def test_a_deleted_run_that_is_asked_for_is_named_and_as_a_baseline_an_error(
    folder: Path, runs: dict[str, str]
) -> None:
    client().delete_run(runs["bad"])
    report, _ = compared("mine", [*runs.values()], 8, None)
    (left_out,) = report["left_out"]
    assert left_out["name"] == "bad"
    assert "was deleted in MLflow: restore it (mlflow runs restore --run-id" in left_out["reason"]
    with pytest.raises(ConfigError, match="was deleted in MLflow"):
        compared("mine", [], 8, runs["bad"])


def test_where_one_run_alone_can_be_read_the_others_are_named(folder: Path, runs: dict[str, str]) -> None:
    for name in ("bad", "new"):
        (folder / "store" / name / "pairs.json").write_text("[]")
    with pytest.raises(IncomparableError, match=r"bad: .*pairs\.json is not what"):
        compared("mine", [], 8, None)
    (folder / "store" / "old" / "pairs.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"new: .*; bad: .*; old: "):
        compared("mine", [], 8, None)


def test_decisions_that_are_no_chain_keep_no_run_from_being_compared(
    folder: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: str) -> None:
        raise PromotionError("decision 2 was changed")

    monkeypatch.setattr(evaluated_runs, "registered_name", lambda run: "mine")
    monkeypatch.setattr(evaluated_runs, "decisions_on", broken)
    report, _ = compared("mine", [], 8, None)
    assert [each["later"] for each in report["runs"]] == [["decision 2 was changed"]] * 3
