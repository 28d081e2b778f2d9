"""What follows the writing of a decision: aliases are moved, read back and compared, and model cards renewed."""

from collections.abc import Callable
from typing import Any

from preflow.errors import ChampionChangedError, PreflowError
from tasks.tracking.client import brief, client, set_tags
from tasks.tracking.registry.cards import renew_cards
from tasks.tracking.registry.decisions import MOVING, Decision, Place, Record, readable, records
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel, read_model

#: Says to people what could not be done or checked.
Say = Callable[[str], None]


class OvertakenError(Exception):
    """Another decision of the same number counts."""

    def __init__(self, model: str, first: Record, *, moves: bool) -> None:
        super().__init__(
            f"another decision on {model} was taken at the same time and came first (run {first.run_id}). Ask again, "
            "so that the challenger is compared with the champion of now"
        )
        self.moves = moves


def finish(decision: Decision, run_id: str, say: Say) -> None:
    """Everything after the writing of a decision; each step can be done again.

    Raises:
        OvertakenError: Another decision of the same number counts.
        ChampionChangedError: The champion was moved by hand meanwhile.
    """
    store = client()
    _give_way(decision, run_id)
    if decision.outcome in MOVING and decision.chosen is not None:
        move(store, decision.model, decision.champion, decision.chosen)
        _give_way(decision, run_id)
        found = read_model(decision.model).aliases.get(CHAMPION)
        if found != decision.chosen.version:
            drop(store, run_id, "overtaken")
            raise ChampionChangedError(
                f"the champion of {decision.model} was set to {in_words(found)} by someone else while decision "
                f"{decision.number} set it to version {decision.chosen.version}. Ask again"
            )
    _renew_cards(decision, say)
    store.set_terminated(run_id, "FINISHED")


def _renew_cards(decision: Decision, say: Say) -> None:
    """Renew model cards where that is possible: a run may have been removed, and its card with it."""
    from mlflow.exceptions import MlflowException

    try:
        renew_cards(decision)
    except (MlflowException, PreflowError, OSError, ValueError) as error:
        say(f"the model cards of decision {decision.number} on {decision.model} were not renewed: {brief(error)}")


def move(store: Any, model: str, old: Place | None, new: Place) -> None:
    """Set ``previous`` and ``champion``, and drop ``challenger`` where the champion had it; can be done again."""
    if old is not None and old.version != new.version and read_model(model).version(old.version) is not None:
        store.set_registered_model_alias(model, PREVIOUS, str(old.version))
    store.set_registered_model_alias(model, CHAMPION, str(new.version))
    if read_model(model).aliases.get(CHALLENGER) == new.version:
        store.delete_registered_model_alias(model, CHALLENGER)


def _give_way(decision: Decision, run_id: str) -> None:
    """Leave the number, and the champion, to a decision that was finished before, or else began before.

    Raises:
        OvertakenError: There is one; the champion is as it says.
    """
    same = [each for each in records(decision.model) if each.number == decision.number and _counts(each)]
    first = min(same, key=lambda each: (each.status != "FINISHED", each.started, each.run_id))
    if first.run_id == run_id:
        return
    store, winner = client(), readable(first)
    drop(store, run_id, "overtaken")
    moves = winner is not None and winner.outcome in MOVING
    found = read_model(decision.model)
    if moves and winner is not None and winner.chosen is not None and found.version(winner.chosen.version) is not None:
        move(store, decision.model, winner.champion, winner.chosen)
    elif decision.outcome in MOVING and decision.chosen is not None:
        _move_back(store, found, decision.champion, decision.chosen)
    raise OvertakenError(decision.model, first, moves=moves)


def _move_back(store: Any, found: RegisteredModel, old: Place | None, new: Place) -> None:
    """Give the alias back to the champion before, where a decision that gave way had moved it."""
    if found.aliases.get(CHAMPION) != new.version or (old is not None and old.version == new.version):
        return
    if old is None:
        store.delete_registered_model_alias(found.name, CHAMPION)
    elif found.version(old.version) is not None:
        store.set_registered_model_alias(found.name, CHAMPION, str(old.version))


def _counts(record: Record) -> bool:
    return record.status in ("RUNNING", "FINISHED")


def drop(store: Any, run_id: str, why: str) -> None:
    """Let a decision count no more; its run says why."""
    set_tags(store, run_id, {"dropped": why})
    store.set_terminated(run_id, "KILLED")


def in_words(version: int | None) -> str:
    """A version in a sentence."""
    return "none" if version is None else f"version {version}"
