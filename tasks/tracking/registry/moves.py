"""Taking a decision: written first, then the aliases are moved, read back and compared.

A process that ends between two steps leaves a run that is called running: the next start finishes it where the decision
was written, and undoes it where it was not. MLflow has no compare-and-set: on one machine a lock makes decisions take
turns; two machines see each other's runs, of which one gives way. Nothing that can be deleted or go missing keeps a
decision open for ever: one whose version is gone is undone, and a model card that cannot be renewed is named.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock

from preflow.environment import preflow_home
from preflow.errors import ChampionChangedError, PreflowError, PromotionError
from preflow.fingerprints.files import json_digest
from tasks.tracking.client import brief, client, set_tags
from tasks.tracking.lineage import heartbeat_tags, is_gone, process_tags
from tasks.tracking.registry.cards import renew_cards
from tasks.tracking.registry.decisions import FILE, MOVING, Decision, Draft, Place, Record, read, records, taken
from tasks.tracking.registry.integrity import require_whole
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel, read_model

#: Says to people what could not be done or checked.
Say = Callable[[str], None]
_LOGGER = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(model: str) -> Iterator[None]:
    """Hold the lock of a registered model: on this machine, its decisions take turns."""
    folder = preflow_home() / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{json_digest(model)[:16]}.lock"):
        yield


def take(draft: Draft, experiment_id: str, say: Say = _LOGGER.warning) -> Decision:
    """Take a decision: record it, and move the aliases as decided.

    Args:
        draft: What is decided, with the champion that it was decided against.
        experiment_id: Where its run is made.
        say: Takes a sentence on what could not be checked or renewed, which keeps no decision from being taken.

    Raises:
        ChampionChangedError: The champion is not the one that the decision was made against, or another decision was
            taken at the same time.
        PromotionError: An earlier decision was changed; the version was deleted or changed since it was decided on.
    """
    with one_at_a_time(draft.model):
        recover(draft.model)
        found = read_model(draft.model)
        _require_champion(draft, found)
        _require_chosen(draft, found, say)
        before = taken(draft.model)
        decision = Decision(
            **draft.model_dump(),
            number=before[-1].number + 1 if before else 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            previous=before[-1].digest if before else None,
        )
        run_id = _begin(decision, experiment_id)
        _finish(decision, run_id, say)
    return decision


def _require_champion(draft: Draft, found: RegisteredModel) -> None:
    now = found.aliases.get(CHAMPION)
    expected = draft.champion.version if draft.champion else None
    if now != expected:
        raise ChampionChangedError(
            f"the champion of {draft.model} changed meanwhile: it was {_said(expected)} and is {_said(now)}. "
            "Ask again, so that the challenger is compared with it"
        )


def _require_chosen(draft: Draft, found: RegisteredModel, say: Say) -> None:
    """Hold the version that becomes champion to what was decided on: days may have passed while a person was asked."""
    if draft.outcome not in MOVING or draft.chosen is None:
        return
    number, now = draft.chosen.version, found.version(draft.chosen.version)
    if now is None:
        raise PromotionError(
            f"version {number} of {draft.model} was deleted since it was decided on: nothing is moved. preflow models "
            f"{draft.model} shows what there is"
        )
    if now.artifact_digest != draft.chosen.artifact_digest:
        raise PromotionError(
            f"version {number} of {draft.model} has the digest {now.artifact_digest}, but "
            f"{draft.chosen.artifact_digest} was decided on: nothing is moved. Restore its tag artifact_digest, or ask "
            "again"
        )
    unchecked = require_whole(draft.model, now)
    if unchecked is not None:
        say(unchecked)


def _said(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _begin(decision: Decision, experiment_id: str) -> str:
    store = client()
    tags = {
        "kind": "decision",
        "registered_model": decision.model,
        "decision": str(decision.number),
        "decision_digest": decision.digest(),
        "outcome": decision.outcome,
        **_compared(decision),
        **process_tags(),
        **heartbeat_tags(),
    }
    name = f"decision-{decision.number}-{decision.outcome}"
    run_id = str(store.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
    store.log_text(run_id, decision.text(), FILE)
    return run_id


def _compared(decision: Decision) -> dict[str, str]:
    """Tags by which later decisions count those on one held-out set."""
    return {
        name: str(decision.evidence[name]) for name in ("held_out_digest", "comparison") if name in decision.evidence
    }


def _finish(decision: Decision, run_id: str, say: Say) -> None:
    """Everything after the writing of a decision; each step can be done again."""
    store = client()
    if decision.outcome in MOVING and decision.chosen is not None:
        _give_way(decision, run_id)
        _move(store, decision.model, decision.champion, decision.chosen)
        _give_way(decision, run_id)
        found = read_model(decision.model).aliases.get(CHAMPION)
        if found != decision.chosen.version:
            _drop(store, run_id, "overtaken")
            raise ChampionChangedError(
                f"the champion of {decision.model} was set to {_said(found)} by someone else while decision "
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


def _move(store: Any, model: str, old: Place | None, new: Place) -> None:
    if old is not None and old.version != new.version and read_model(model).version(old.version) is not None:
        store.set_registered_model_alias(model, PREVIOUS, str(old.version))
    store.set_registered_model_alias(model, CHAMPION, str(new.version))
    if read_model(model).aliases.get(CHALLENGER) == new.version:
        store.delete_registered_model_alias(model, CHALLENGER)


def _give_way(decision: Decision, run_id: str) -> None:
    """Leave the champion to a decision of the same number that was finished before, or else began before.

    Raises:
        ChampionChangedError: There is one; the champion is as it says.
    """
    same = [each for each in records(decision.model) if each.number == decision.number and _counts(each)]
    first = min(same, key=lambda each: (each.status != "FINISHED", each.started, each.run_id))
    if first.run_id == run_id:
        return
    store, winner = client(), read(first)
    _drop(store, run_id, "overtaken")
    if winner is not None and winner.outcome in MOVING and winner.chosen is not None:
        _move(store, decision.model, winner.champion, winner.chosen)
    raise ChampionChangedError(
        f"another decision on {decision.model} was taken at the same time and came first (run {first.run_id}). Ask "
        "again, so that the challenger is compared with the champion of now"
    )


def _counts(record: Record) -> bool:
    return record.status in ("RUNNING", "FINISHED")


def _drop(store: Any, run_id: str, why: str) -> None:
    set_tags(store, run_id, {"dropped": why})
    store.set_terminated(run_id, "KILLED")


def recover(model: str) -> list[str]:
    """Finish or undo the decisions of processes that have ended; a sentence for each. The lock must be held."""
    said: list[str] = []
    for record in records(model):
        if record.status == "RUNNING" and is_gone(record.tags):
            said.append(_recover(model, record, said.append))
    return said


def _recover(model: str, record: Record, say: Say) -> str:
    """Finish or undo one decision; what came of it."""
    which, decision = f"decision {record.number}", read(record)
    if decision is None:
        _drop(client(), record.run_id, "never written")
        return f"{which} was begun and never written: it is dropped"
    if decision.outcome in MOVING and decision.chosen is not None:
        found, old, new = read_model(model), decision.champion, decision.chosen
        known = {old.version if old else None, new.version}
        gone = [each for each in (old, new) if each is not None and found.version(each.version) is None]
        if gone:  # MLflow drops a version's aliases with it
            known.add(None)
        if found.aliases.get(CHAMPION) not in known:
            _drop(client(), record.run_id, "overtaken")
            return f"{which} was interrupted, and the champion has changed since: it is dropped"
        if new in gone:
            _undo(found, decision)
            _drop(client(), record.run_id, "version deleted")
            return f"{which} was interrupted, and version {new.version} was deleted since: it is undone"
    try:
        _finish(decision, record.run_id, say)
    except ChampionChangedError as error:
        return f"{which} was interrupted: {error.message}"
    return f"{which} ({decision.outcome}) was interrupted: it is finished now"


def _undo(found: RegisteredModel, decision: Decision) -> None:
    """Set the aliases back to where they were before a decision whose version is gone, as far as versions are there."""
    store, old = client(), decision.champion
    if old is None or found.version(old.version) is None:
        return
    if found.aliases.get(CHAMPION) is None:
        store.set_registered_model_alias(found.name, CHAMPION, str(old.version))
    if found.aliases.get(PREVIOUS) != old.version:
        return
    before = _champion_before(found.name)
    if before is not None and found.version(before) is not None:
        store.set_registered_model_alias(found.name, PREVIOUS, str(before))
    else:
        store.delete_registered_model_alias(found.name, PREVIOUS)


def _champion_before(model: str) -> int | None:
    """The champion before the present one, by the last decision that moved it."""
    for record in reversed(taken(model)):
        decision = read(record)
        if decision is not None and decision.outcome in MOVING:
            return decision.champion.version if decision.champion is not None else None
    return None
