"""Decisions on a registered model: taken whole or not at all, one at a time, each with the digest of the one before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preflow.errors import ChampionChangedError, PromotionError
from tasks.tracking.client import client
from tasks.tracking.registry import finishing, moves
from tasks.tracking.registry.decisions import Decision, Outcome, Place, chain, records, taken
from tasks.tracking.registry.state import read_state
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from tests.fixtures.registered_versions import Registry, database, killed_at, registry

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


__all__ = ["database", "registry"]  # fixtures


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_a_kill_at_any_write_is_finished_or_undone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    """Create, write, alias previous, alias champion, drop challenger, finish: six writes of a promotion."""
    registry.take(None, 1)
    assert killed_at(monkeypatch, call, after=after, work=lambda: registry.take(1, 2))
    found = read_state(registry.name)
    assert not found.problems
    assert {each.status for each in records(registry.name)} <= {"FINISHED", "KILLED"}
    written = call > 2 or (call == 2 and after)
    expected = {CHAMPION: 2, PREVIOUS: 1} if written else {CHAMPION: 1, CHALLENGER: 2}
    assert registry.aliases() == expected
    assert [each.number for _, each in found.decisions] == ([1, 2] if written else [1])
    assert bool(found.recovered) == (not (call == 1 and not after) and not (call == 6 and after))
    registry.take(2 if written else 1, 3)
    assert registry.aliases()[CHAMPION] == 3
    assert len(chain(registry.name)) == (3 if written else 2)


def test_there_is_no_seventh_write(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.take(None, 1)
    assert not killed_at(monkeypatch, 7, after=False, work=lambda: registry.take(1, 2))


def test_decisions_are_a_chain(registry: Registry) -> None:
    first = registry.take(None, 1)
    second = registry.take(1, 2, "refused")
    third = registry.take(1, 2, "rolled_back")
    assert (first.previous, second.previous, third.previous) == (None, first.digest(), second.digest())
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert [each.outcome for _, each in read_state(registry.name).decisions] == ["promoted", "refused", "rolled_back"]


def test_the_page_of_a_decision_says_what_it_came_to_and_why(registry: Registry) -> None:
    registry.take(None, 1)
    decision = registry.take(1, 2, "refused")
    (_, record) = records(registry.name)
    text = record.tags["mlflow.note.content"]
    assert text.startswith(f"Decision 2 on {registry.name}: refused, version 2")
    assert all(f"- {reason}" in text for reason in decision.reasons)
    assert text.endswith("The champion before was version 1.")


def test_what_is_not_promoted_moves_nothing(registry: Registry) -> None:
    for outcome in ("eligible", "refused", "inconclusive", "rejected"):
        registry.take(None, 2, outcome)
    assert registry.aliases() == {CHALLENGER: 2}


def test_a_changed_decision_breaks_the_chain(registry: Registry, database: Path) -> None:
    registry.take(None, 1)
    registry.take(1, 2)
    (first, _) = records(registry.name)
    file = database.parent / "artifacts" / first.run_id / "artifacts" / "decision.json"
    values = json.loads(file.read_text())
    file.write_text(file.read_text().replace('"promoted"', '"rejected"'))
    with pytest.raises(PromotionError, match="decision 1 was changed"):
        chain(registry.name)
    with pytest.raises(PromotionError, match="decision 1 was changed"):
        registry.take(2, 3)
    file.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    assert not read_state(registry.name).problems
    client().delete_run(first.run_id)
    with pytest.raises(PromotionError, match="are no chain: number 1"):
        chain(registry.name)


def test_the_second_of_two_promotions_fails(registry: Registry) -> None:
    """Both compared with version 1; the first has moved the champion meanwhile."""
    registry.take(None, 1)
    registry.take(1, 2)
    with pytest.raises(ChampionChangedError, match="it was version 1 and is version 2"):
        registry.take(1, 3)
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert len(taken(registry.name)) == 2


@pytest.fixture
def at_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has another machine, which has no common lock, take a decision while ours is numbered and not yet written."""

    def arrange(other: Callable[[], Any]) -> None:
        begin = moves._begin

        def begin_second(decision: Any, experiment: str) -> str:
            monkeypatch.setattr(moves, "_begin", begin)
            monkeypatch.setattr(moves, "one_at_a_time", lambda model: __import__("contextlib").nullcontext())
            other()  # all of the other machine's decision
            return begin(decision, experiment)

        monkeypatch.setattr(moves, "_begin", begin_second)

    return arrange


def test_of_two_machines_one_gives_way(registry: Registry, at_once: Callable[[Callable[[], Any]], None]) -> None:
    """Another's decision of the same number is there before ours has moved the alias."""
    registry.take(None, 1)
    at_once(lambda: registry.take(1, 3))
    with pytest.raises(ChampionChangedError, match="came first"):
        registry.take(1, 2)
    assert registry.aliases()[CHAMPION] == 3
    assert [each.chosen.version for _, each in chain(registry.name) if each.chosen] == [1, 3]
    assert [each.status for each in records(registry.name)] == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.parametrize("other", ["refused", "inconclusive"])
@pytest.mark.parametrize("own", ["eligible", "promoted"])
def test_decisions_of_two_machines_of_which_one_moves_nothing_are_both_recorded(
    registry: Registry, at_once: Callable[[Callable[[], Any]], None], own: Outcome, other: Outcome
) -> None:
    registry.take(None, 1)
    at_once(lambda: registry.take(1, 3, other))
    assert registry.take(1, 2, own).number == 3
    assert [(each.number, each.outcome) for _, each in chain(registry.name)] == [
        *[(1, "promoted"), (2, other), (3, own)]
    ]
    assert sorted(each.status for each in records(registry.name)) == [*["FINISHED"] * 3, "KILLED"]
    assert registry.aliases()[CHAMPION] == (2 if own == "promoted" else 1)
    assert not read_state(registry.name).problems


def test_what_moves_nothing_is_asked_again_where_another_machine_moved_the_champion(
    registry: Registry, at_once: Callable[[Callable[[], Any]], None]
) -> None:
    registry.take(None, 1)
    at_once(lambda: registry.take(1, 3))
    with pytest.raises(ChampionChangedError, match="it was version 1 and is version 3"):
        registry.take(1, 2, "refused")
    assert [each.number for _, each in chain(registry.name)] == [1, 2]


def test_an_alias_is_given_back_where_the_number_was_lost_after_it_moved(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other machine's clock is behind, so that its decision of the same number counts as begun before."""
    registry.take(None, 1)
    move, took = finishing.move, []

    def moved_meanwhile(store: Any, model: str, old: Place | None, new: Place) -> None:
        move(store, model, old, new)
        monkeypatch.setattr(finishing, "move", move)
        other = registry.draft(1, 3, "refused")
        decision = Decision(
            **other.model_dump(), number=2, at="2026-11-30T00:00:00+00:00", previous=taken(model)[-1].digest
        )
        run = moves._begin(decision, registry.experiment)
        store.set_terminated(run, "FINISHED")
        took.append(run)

    monkeypatch.setattr(finishing, "move", moved_meanwhile)
    assert registry.take(1, 2).number == 3
    assert registry.aliases() == {CHAMPION: 2, PREVIOUS: 1}
    assert [each.number for _, each in chain(registry.name)] == [1, 2, 3]


def test_an_alias_that_was_set_meanwhile_is_found_when_read_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.take(None, 1)
    move = finishing.move

    def moved_by_hand(store: Any, model: str, old: Place | None, new: Place) -> None:
        move(store, model, old, new)
        store.set_registered_model_alias(model, CHAMPION, "3")

    monkeypatch.setattr(finishing, "move", moved_by_hand)
    with pytest.raises(ChampionChangedError, match="was set to version 3 by someone else"):
        registry.take(1, 2)
    assert [each.number for _, each in chain(registry.name)] == [1]


def test_an_alias_moved_by_hand_is_found_and_a_rollback_records_it(registry: Registry) -> None:
    registry.take(None, 1)
    client().set_registered_model_alias(registry.name, CHAMPION, "3")
    (problem,) = read_state(registry.name).problems
    assert "moved by hand: it is version 3, but decision 1 says version 1" in problem
    assert f"preflow rollback {registry.name} --to 3 --reason TEXT" in problem
    registry.take(3, 3, "rolled_back")
    assert not read_state(registry.name).problems
    client().delete_registered_model_alias(registry.name, CHAMPION)
    (problem,) = read_state(registry.name).problems
    assert "it is not set, but decision 2 says version 3" in problem


def test_a_champion_that_no_decision_made_is_found(registry: Registry) -> None:
    client().set_registered_model_alias(registry.name, CHAMPION, "3")
    (problem,) = read_state(registry.name).problems
    assert "it is version 3, but no decision made one" in problem


def test_a_deleted_champion_is_found(registry: Registry) -> None:
    registry.take(None, 1)
    client().delete_model_version(registry.name, "1")
    (problem,) = read_state(registry.name).problems
    assert "version 1, the champion since decision 1, was deleted, and its alias with it" in problem
    registry.take(None, 2, "rolled_back")
    assert not read_state(registry.name).problems


def test_an_edited_digest_of_the_champion_is_found(registry: Registry) -> None:
    registry.take(None, 1)
    client().set_model_version_tag(registry.name, "1", "artifact_digest", "0" * 64)
    (problem,) = read_state(registry.name).problems
    assert f"version 1 has the digest {'0' * 64}, but decision 1 says {'1' * 64}" in problem
    assert f"set it back, or make another version the champion by preflow rollback {registry.name} --to" in problem
    client().set_model_version_tag(registry.name, "1", "artifact_digest", "1" * 64)
    assert not read_state(registry.name).problems
    client().set_model_version_tag(registry.name, "1", "artifact_digest", "0" * 64)
    registry.take(1, 2, "rolled_back")
    assert not read_state(registry.name).problems


def test_aliases_and_models_of_another_case_are_found(registry: Registry) -> None:
    client().set_registered_model_alias(registry.name, "Champion", "1")
    client().create_registered_model(registry.name.upper())
    found = read_state(registry.name)
    assert not found.problems
    assert [each.partition(" is another ")[0] for each in found.remarks] == ["'Champion'", f"'{registry.name.upper()}'"]


def test_dead_decisions_are_not_closed_by_pipeline_runs(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.tracking.pipeline_run import dead_runs

    assert killed_at(monkeypatch, 3, after=True, work=lambda: (registry.take(None, 1), registry.take(1, 2)))
    assert [each.status for each in records(registry.name)][-1] == "RUNNING"
    assert not dead_runs(client()).keys() & {each.run_id for each in records(registry.name)}
