"""Decisions that are missing or were changed: shown, in the way of promotions, and never of a rollback."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.commands.app import make_app
from preflow.errors import PromotionError
from tasks.tracking.client import client
from tasks.tracking.registry.decisions import chain, records
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.state import read_state
from tasks.tracking.registry.versions import CHAMPION
from tests.fixtures.registered_versions import Registry, database, killed_at, registry

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
__all__ = ["database", "registry"]  # fixtures


def edit(registry: Registry, database: Path, number: int) -> None:
    (run_id,) = [each.run_id for each in records(registry.name) if each.number == number]
    file = database.parent / "artifacts" / run_id / "artifacts" / "decision.json"
    file.write_text(file.read_text() + " ")


def remove(registry: Registry, database: Path, number: int) -> None:
    (run_id,) = [each.run_id for each in records(registry.name) if each.number == number]
    client().delete_run(run_id)


@pytest.mark.parametrize("number", [1, 2, 3], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("damage", "said"), [(edit, "was changed"), (remove, "are no chain")])
def test_a_rollback_begins_anew_after_a_break_and_records_it(
    registry: Registry, database: Path, damage: Callable[[Registry, Path, int], None], said: str, number: int
) -> None:
    registry.take(None, 1)
    registry.take(1, 2)
    registry.take(2, 3, "refused")
    damage(registry, database, number)
    if damage is remove and number == 3:
        assert not read_state(registry.name).problems, "of a last decision that is gone nothing is left to miss it"
        return
    shown = CliRunner().invoke(make_app(), ["models", registry.name])
    words = " ".join(shown.output.split())
    assert (shown.exit_code, said in words, "versions" in words, "champion" in words) == (1, True, True, True), words
    assert f"or begin anew by preflow rollback {registry.name} --to VERSION" in words
    with pytest.raises(PromotionError, match=said):
        registry.take(2, 3)
    decision, _ = roll_back(registry.name, 1, "Ada", "wrong answers")
    assert registry.aliases()[CHAMPION] == 1
    assert (len(decision.broken), said in decision.broken[0]) == (1, True)
    assert any(said in each for each in decision.reasons), "the model cards name it"
    shown = CliRunner().invoke(make_app(), ["models", registry.name])
    assert (shown.exit_code, "recorded by a rollback: " in " ".join(shown.output.split())) == (0, True), shown.output
    registry.take(1, 3)
    assert [each.number for _, each in chain(registry.name)][-2:] == [decision.number, decision.number + 1]
    edit(registry, database, decision.number)
    assert read_state(registry.name).problems, "what is changed later is found"


def test_the_champion_itself_may_be_recorded_anew(registry: Registry, database: Path) -> None:
    registry.take(None, 1)
    registry.take(1, 2)
    edit(registry, database, 1)
    decision, _ = roll_back(registry.name, 2, "Ada", "it is as it was")
    assert (decision.number, registry.aliases()[CHAMPION]) == (3, 2)
    assert not read_state(registry.name).problems


def test_an_interrupted_decision_whose_file_was_changed_is_dropped(
    registry: Registry, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.take(None, 1)
    assert killed_at(monkeypatch, 2, after=True, work=lambda: registry.take(1, 2))
    edit(registry, database, 2)
    found = read_state(registry.name)
    assert "its file was changed since" in found.recovered[0]
    assert not found.problems
    assert registry.aliases()[CHAMPION] == 1
