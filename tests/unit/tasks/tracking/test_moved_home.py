"""A home folder that was moved with its database: comparisons, promotions and rollbacks find and keep files in it."""

from pathlib import Path

import pytest

from flows.commands.compare import compared
from preflow.artifacts import Artifact, build, write_json
from preflow.environment import preflow_home
from tasks.tracking.client import client
from tasks.tracking.evaluated_runs import evaluated_runs, log_comparison
from tasks.tracking.past_runs import past_run
from tasks.tracking.pipeline_run import make_experiment
from tasks.tracking.registry import moves
from tasks.tracking.registry.decisions import Draft, Place, chain
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.versions import CHAMPION, read_model
from tests.unit.comparison.planted_runs import kept_run

pytestmark = pytest.mark.slow  # a database of MLflow's own is made
NAME = "mine"


def finished(name: str, right: str) -> str:
    """A finished pipeline run with artifacts of two stages in the store of the home folder."""
    store, planted = client(), kept_run(name, right)
    run = store.create_run(make_experiment(store, NAME), tags={"kind": "pipeline", "mlflow.runName": name}).info.run_id
    store.log_text(run, f"name: {NAME}\nmodel_name: m\nsft: {{}}\ndpo: {{}}\n", "recipe.yaml")

    def evaluation(out: Path) -> None:
        write_json(out / "evaluation.json", planted.evaluation)
        write_json(out / "pairs.json", planted.pairs)
        (out / "answers").mkdir()
        write_json(out / "answers" / "dpo.json", planted.answers)

    for stage, write in (("evaluate", evaluation), ("dpo", lambda out: write_json(out / "made.json", name))):
        artifact: Artifact = build(preflow_home() / "store" / stage / name, write)
        tags = {"stage": stage, "artifact_path": artifact.path, "artifact_digest": artifact.digest}
        child = store.create_run(make_experiment(store, NAME), tags={"mlflow.parentRunId": run, **tags}).info.run_id
        store.log_artifacts(child, artifact.path)
        store.set_terminated(child)
    store.set_terminated(run)
    return str(run)


def test_runs_of_a_moved_home_are_compared_promoted_and_rolled_back_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, moved = tmp_path / "old", tmp_path / "moved"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PREFLOW_HOME", str(old))
    monkeypatch.setattr(moves, "require_whole", lambda name, version: None)
    runs = [finished("first", "1" * 60 + "0" * 40), finished("second", "1" * 75 + "0" * 25)]
    client().create_registered_model(NAME)
    places = []
    for number, run in enumerate(runs, start=1):
        client().create_model_version(NAME, f"file:///{number}", run, tags={"artifact_digest": f"{number}" * 64})
        places.append(Place(version=number, artifact_digest=f"{number}" * 64, run_id=run))
    experiment = make_experiment(client(), NAME)
    take(Draft(model=NAME, outcome="promoted", champion=None, chosen=places[0]), experiment)
    old.rename(moved)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow's client sets it
    monkeypatch.setenv("PREFLOW_HOME", str(moved))

    report, found = compared(NAME, [], 8, None)
    assert [each.name for each in found] == ["second", "first"]
    page = tmp_path / "comparison.html"
    page.write_text("<p>")
    log_comparison(report["groups"][0][0], [page])
    assert (moved / "mlflow" / "artifacts" / runs[1] / "artifacts" / "comparison" / page.name).read_text() == "<p>"
    assert Path(past_run(NAME).artifacts["dpo"].path) == moved / "store" / "dpo" / "second"
    (moved / "store" / "evaluate").rename(moved / "pruned")
    assert [each.evaluation for each in evaluated_runs(NAME, [], 8)[0]] == [each.evaluation for each in found]

    take(Draft(model=NAME, outcome="promoted", champion=places[0], chosen=places[1]), experiment)
    roll_back(NAME, None, "Ada", "wrong answers")
    assert read_model(NAME).aliases[CHAMPION] == 1
    decided = chain(NAME)
    assert [each.number for _, each in decided] == [1, 2, 3]
    for record, _ in decided:
        assert (moved / "mlflow" / "artifacts" / record.run_id / "artifacts" / "decision.json").is_file()
    assert not old.exists(), "nothing was written where the home folder was"
