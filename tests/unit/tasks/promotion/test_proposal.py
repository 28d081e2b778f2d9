"""The flow of every night: it proposes, and ends well where there is nothing to propose."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.promotion
from flows.promotion import proposal
from preflow.errors import PromotionError
from tasks.promotion import compare
from tasks.tracking.client import client
from tasks.tracking.registry.decisions import taken
from tasks.tracking.registry.versions import CHAMPION, read_model
from tests.fixtures.promotions import named

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


@pytest.fixture
def propose(file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Any, list[str]]]:
    """Runs the flow of a night whose training makes a version; what it returns and says."""

    def run(number: int) -> tuple[Any, list[str]]:
        said: list[str] = []
        runs = {each.number: each.run_id for each in read_model(named(file)).versions}
        made = SimpleNamespace(mlflow_run_id=runs[number])
        replaced: dict[str, Any] = {
            "two_stage": lambda recipe, overrides: made,
            "compare": compare.fn,
            "promotion": flows.promotion.promotion.fn,
            "create_markdown_artifact": lambda *given, **named: None,
            "log_user": said.append,
        }
        with monkeypatch.context() as patch:
            for name, value in replaced.items():
                patch.setattr(flows.promotion, name, value)
            return proposal.fn(str(file)), said

    return run


def test_a_proposal_after_its_promotion_ends_well_and_says_that_there_is_nothing_to_decide(
    propose: Callable[[int], tuple[Any, list[str]]], promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    assert promote(1)[0] == 0
    decision, said = propose(1)
    assert decision is None
    assert "made version 1, the champion: there is nothing to decide" in said[0]
    assert len(taken(named(file))) == 1, "no decision was taken, and no level spent"


def test_a_proposal_of_another_model_is_compared_and_moves_nothing(
    propose: Callable[[int], tuple[Any, list[str]]], promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    assert promote(1)[0] == 0
    decision, said = propose(2)
    assert (decision.outcome, decision.chosen.version) == ("eligible", 2)
    assert f"Decision 2 on {named(file)}: eligible" in said[0]
    assert read_model(named(file)).aliases[CHAMPION] == 1


def test_a_champion_that_was_moved_by_hand_still_stops_it(
    propose: Callable[[int], tuple[Any, list[str]]], promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    assert promote(1)[0] == 0
    client().set_registered_model_alias(named(file), CHAMPION, "2")
    with pytest.raises(PromotionError, match="moved by hand"):
        propose(2)
