"""Going back to an earlier version: whole files and a reason are asked for, no evidence."""

from pathlib import Path

import pytest

from preflow.errors import PromotionError
from tasks.tracking.client import client
from tasks.tracking.registry import moves
from tasks.tracking.registry.decisions import Draft, Place
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.signature import signed
from tasks.tracking.registry.versions import CHAMPION, PREVIOUS, Version, read_model

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def name(database: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A model of two versions, promoted one after the other, whose files are whole."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setattr(moves, "require_whole", lambda name, version: None)
    store, model = client(), f"m{abs(hash(request.node.name))}"
    experiment = store.create_experiment(model, artifact_location=(database.parent / "artifacts").as_uri())
    store.create_registered_model(model)
    for number in (1, 2):
        run = store.create_run(experiment).info.run_id
        store.create_model_version(model, f"file:///{number}", run, tags={"artifact_digest": f"{number}" * 64})
    places = [Place(version=number, artifact_digest=f"{number}" * 64) for number in (1, 2)]
    take(Draft(model=model, outcome="promoted", champion=None, chosen=places[0]), experiment)
    take(Draft(model=model, outcome="promoted", champion=places[0], chosen=places[1]), experiment)
    return model


def test_without_a_version_it_goes_to_the_one_before_and_forth_again(name: str) -> None:
    decision, unchecked = roll_back(name, None, "Ada", "wrong answers")
    assert (decision.outcome, decision.by, decision.reason, decision.identity, unchecked) == (
        *("rolled_back", "Ada", "wrong answers", "declared"),
        None,
    )
    assert read_model(name).aliases == {CHAMPION: 1, PREVIOUS: 2}
    again, _ = roll_back(name, None, "Ada", "they were right")
    assert (again.number, again.previous) == (4, decision.digest())
    assert read_model(name).aliases == {CHAMPION: 2, PREVIOUS: 1}


def test_what_cannot_be_gone_back_to_is_refused(name: str) -> None:
    with pytest.raises(PromotionError, match=r"version 2 of .* is the champion already"):
        roll_back(name, 2, "Ada", "x")
    with pytest.raises(PromotionError, match=r"has no version 7: it was deleted, or never was; there are 1, 2"):
        roll_back(name, 7, "Ada", "x")
    client().delete_registered_model_alias(name, PREVIOUS)
    with pytest.raises(PromotionError, match="has no version before the champion"):
        roll_back(name, None, "Ada", "x")


def test_a_version_that_was_changed_is_refused_and_nothing_moves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(name: str, version: Version) -> str | None:
        raise PromotionError("version 1 is not what was registered")

    monkeypatch.setattr(moves, "require_whole", changed)
    with pytest.raises(PromotionError, match="not what was registered"):
        roll_back(name, 1, "Ada", "x")
    assert read_model(name).aliases[CHAMPION] == 2


def test_an_alias_that_was_set_by_hand_is_recorded_by_going_to_where_it_is(name: str) -> None:
    client().set_registered_model_alias(name, CHAMPION, "1")
    decision, _ = roll_back(name, 1, "Ada", "it was meant")
    assert (decision.champion, decision.chosen) == (decision.chosen, decision.champion)
    assert read_model(name).aliases[CHAMPION] == 1


def test_a_name_counts_as_the_login_where_it_is_that(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(model="m", outcome="promoted", champion=None, chosen=None)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    assert signed(draft, "ada", "x").identity == "declared"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert (signed(draft, "ada", "x").identity, signed(draft, "bob", "x").identity) == ("login", "declared")
