"""Versions and runs that are deleted while a decision is open: none keeps the registered model locked."""

from collections.abc import Callable
from typing import Any

import pytest

from preflow.errors import PromotionError
from tasks.tracking.client import client
from tasks.tracking.registry import moves
from tasks.tracking.registry.decisions import chain, records
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.state import read_state
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from tests.fixtures.registered_versions import Registry, database, killed_at, registry

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
__all__ = ["database", "registry"]  # fixtures
CALLS = [1, 2, 3, 4, 5, 6]


def remove_run(run_id: str) -> None:
    """Delete a run for good, as ``mlflow gc`` does."""
    store = client()
    store.delete_run(run_id)
    store._tracking_client.store._hard_delete_run(run_id)


def kill_then_delete(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: int, after: bool, version: int
) -> list[str]:
    """Kill a promotion of version 2 in place of 1 at a write, delete a version; what the next command says."""
    registry.take(None, 1)
    assert killed_at(monkeypatch, call, after=after, work=lambda: registry.take(1, 2))
    client().delete_model_version(registry.name, str(version))
    found = read_state(registry.name)
    assert {each.status for each in records(registry.name)} <= {"FINISHED", "KILLED"}
    assert not read_state(registry.name).recovered, "done once"
    return list(found.recovered)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_decision_whose_version_was_deleted_is_undone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    """Create, write, alias previous, alias champion, drop challenger, finish: six writes of a promotion."""
    said = kill_then_delete(registry, monkeypatch, call, after, version=2)
    finished, written = call == 6 and after, call > 2 or (call == 2 and after)
    assert registry.aliases() == ({PREVIOUS: 1} if finished else {CHAMPION: 1})
    problems = read_state(registry.name).problems
    assert [("version 2" in each, "was deleted" in each) for each in problems] == ([(True, True)] if finished else [])
    if written and not finished:
        assert said == ["decision 2 was interrupted, and version 2 was deleted since: it is undone"]
    registry.take(None if finished else 1, 3)
    assert registry.aliases()[CHAMPION] == 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_decision_whose_old_champion_was_deleted_is_finished(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    kill_then_delete(registry, monkeypatch, call, after, version=1)
    written = call > 2 or (call == 2 and after)
    assert registry.aliases() == ({CHAMPION: 2} if written else {CHALLENGER: 2})
    assert [each.number for _, each in chain(registry.name)] == ([1, 2] if written else [1])
    assert len(read_state(registry.name).problems) == (0 if written else 1)
    registry.take(2 if written else None, 3)
    assert registry.aliases()[CHAMPION] == 3


def test_an_undone_decision_gives_previous_back(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.take(None, 3)
    registry.take(3, 1)
    assert killed_at(monkeypatch, 4, after=True, work=lambda: registry.take(1, 2))
    assert registry.aliases()[PREVIOUS] == 1
    client().delete_model_version(registry.name, "2")
    read_state(registry.name)
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 3}


def test_a_version_that_was_deleted_since_it_was_decided_on_moves_nothing(registry: Registry) -> None:
    registry.take(None, 1)
    client().delete_model_version(registry.name, "2")
    with pytest.raises(PromotionError, match=r"version 2 of .* was deleted since it was decided on: nothing is moved"):
        registry.take(1, 2)
    assert registry.aliases() == {CHAMPION: 1}
    assert [each.status for each in records(registry.name)] == ["FINISHED"], "nothing was begun"


def test_a_version_that_was_changed_since_moves_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.take(None, 1)
    client().set_model_version_tag(registry.name, "2", "artifact_digest", "0" * 64)
    with pytest.raises(PromotionError, match=rf"has the digest {'0' * 64}, but {'2' * 64} was decided on"):
        registry.take(1, 2)

    def changed(name: str, version: Any) -> str | None:
        raise PromotionError(f"version {version.number} is not what was registered")

    monkeypatch.setattr(moves, "require_whole", changed)
    with pytest.raises(PromotionError, match="version 3 is not what was registered"):
        registry.take(1, 3)
    assert registry.aliases()[CHAMPION] == 1
    assert [each.status for each in records(registry.name)] == ["FINISHED"], "nothing was begun"
    registry.take(1, 3, "refused")  # what moves nothing needs no files


@pytest.mark.parametrize("number", [1, 2], ids=["old", "new"])
def test_a_model_card_whose_run_is_gone_is_said_and_blocks_nothing(
    registry: Registry, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    registry.take(None, 1)
    remove_run(registry.runs[number])
    registry.take(1, 2)
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert "the model cards of decision 2" in caplog.text
    assert [each.status for each in records(registry.name)] == ["FINISHED", "FINISHED"]
    assert not read_state(registry.name).problems


def test_a_rollback_to_a_version_whose_run_is_gone_asks_its_files(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.take(None, 1)
    registry.take(1, 2)
    remove_run(registry.runs[1])
    seen: list[int] = []
    whole: Callable[[str, Any], None] = lambda name, version: seen.append(version.number)  # noqa: E731
    monkeypatch.setattr(moves, "require_whole", whole)
    decision, said = roll_back(registry.name, None, "Ada", "x")
    assert (decision.number, seen) == (3, [1])
    assert said is not None
    assert "were not renewed" in said
    assert registry.aliases() == {CHAMPION: 1, PREVIOUS: 2}
