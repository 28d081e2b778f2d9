"""The model card of a run, and what its version shows, name each decision on its model as soon as it is taken."""

from pathlib import Path

import pytest

from tasks.tracking.client import client
from tasks.tracking.registry import moves
from tasks.tracking.registry.cards import CARD
from tasks.tracking.registry.decisions import Draft, Outcome, Place
from tasks.tracking.registry.moves import take
from tasks.tracking.run_files import read_text

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
NAME = "carded"


def test_cards_of_the_new_and_of_the_old_champion_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(moves, "require_whole", lambda name, version: None)
    store = client()
    experiment = store.create_experiment(NAME, artifact_location=(tmp_path / "artifacts").as_uri())
    store.create_registered_model(NAME)
    places = {}
    for number in (1, 2, 3):
        run = store.create_run(experiment).info.run_id
        if number < 3:  # a run of before has no card
            store.log_text(run, f"# model {number}\n", CARD)
        tags = {"artifact_digest": f"{number}" * 64}
        store.create_model_version(NAME, f"file:///{number}", run, tags=tags, description="as it was")
        places[number] = Place(version=number, artifact_digest=f"{number}" * 64, run_id=run)

    def decide(old: int | None, new: int, outcome: Outcome = "promoted") -> None:
        take(Draft(model=NAME, outcome=outcome, champion=places.get(old or 0), chosen=places[new]), experiment)

    def decisions(number: int) -> list[str]:
        text = read_text(store.get_run(places[number].run_id), CARD)
        shown = store.get_model_version(NAME, str(number)).description
        found = [line for line in (text or "").splitlines() if line.startswith("- Decision")]
        assert found == [line for line in shown.splitlines() if line.startswith("- Decision")]
        return [line.partition(",")[0].removeprefix("- Decision ") for line in found]

    decide(None, 1)
    assert decisions(1) == ["1"]
    assert store.get_model_version(NAME, "2").description == "as it was", "the decision is not about it"
    decide(1, 2, "refused")
    decide(1, 2)
    assert decisions(1) == ["1", "2", "3"], "it was the champion each time"
    assert decisions(2) == ["2", "3"]
    store.delete_run(places[1].run_id)
    decide(2, 1, "rolled_back")
    assert decisions(2) == ["2", "3", "4"], "a deleted run has its decisions no more, and keeps none from others"
    decide(1, 3)
    assert store.get_model_version(NAME, "3").description == "as it was"
