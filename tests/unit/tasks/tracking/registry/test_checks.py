"""What a verification says of decisions that are not finished: it changes nothing, and accuses no one."""

from typing import Any

import pytest

from preflow.verification.check import Check
from tasks.tracking.client import client
from tasks.tracking.registry import moves
from tasks.tracking.registry.checks import verify_version
from tasks.tracking.registry.decisions import records
from tasks.tracking.registry.state import read_state
from tasks.tracking.registry.versions import CHAMPION, read_model
from tests.fixtures.registered_versions import Killed, Registry, database, killed_at, registry

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
__all__ = ["database", "registry"]  # fixtures


def decisions_of(registry: Registry) -> Check:
    version = read_model(registry.name).version(1)
    assert version is not None
    whole = verify_version(registry.name, version, Check("run", "ok"), "another")
    (found,) = [each for each in whole.all() if each.name == "decisions"]
    return found


@pytest.mark.parametrize(("call", "state"), [(3, "ok"), (4, "ok"), (5, "changed"), (6, "changed")])
def test_an_interrupted_decision_is_called_that_and_not_moved_by_hand(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: int, state: str
) -> None:
    """The fourth write moves the alias champion: from then on it is not where the finished decisions say."""
    registry.take(None, 1)
    assert killed_at(monkeypatch, call, after=False, work=lambda: registry.take(1, 2))
    found = decisions_of(registry)
    said = f"decision 2 was interrupted: preflow models {registry.name} finishes or undoes it, then verify again"
    assert (found.state, found.detail) == (state, said)
    assert [each.status for each in records(registry.name)] == ["FINISHED", "RUNNING"], "nothing was changed"
    read_state(registry.name)
    assert (decisions_of(registry).state, decisions_of(registry).detail) == ("ok", "")


def test_a_decision_that_is_being_taken_is_waited_for(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.take(None, 1)

    def moved_and_no_more(decision: Any, run_id: str, say: object) -> None:
        client().set_registered_model_alias(registry.name, CHAMPION, "2")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(moves, "finish", moved_and_no_more)
        with pytest.raises(Killed):
            registry.take(1, 2)
    found = decisions_of(registry)
    assert (found.state, found.detail) == ("changed", "decision 2 is being taken now: verify again when it is done")


def test_an_alias_that_was_moved_by_hand_is_still_called_that(registry: Registry) -> None:
    registry.take(None, 1)
    client().set_registered_model_alias(registry.name, CHAMPION, "3")
    assert "was moved by hand" in decisions_of(registry).detail
