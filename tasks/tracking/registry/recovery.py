"""Decisions of processes that have ended: each is finished, undone or dropped by the next command."""

from preflow.errors import ChampionChangedError, PromotionError
from tasks.tracking.client import client
from tasks.tracking.lineage import is_gone
from tasks.tracking.registry.decisions import MOVING, Decision, Record, read, readable, records, taken
from tasks.tracking.registry.finishing import OvertakenError, Say, drop, finish
from tasks.tracking.registry.versions import CHAMPION, PREVIOUS, RegisteredModel, read_model


def recover(model: str) -> list[str]:
    """Finish or undo the decisions of processes that have ended; a sentence for each. The lock must be held."""
    said: list[str] = []
    for record in records(model):
        if record.status == "RUNNING" and is_gone(record.tags):
            said.append(_recover(model, record, said.append))
    return said


def _recover(model: str, record: Record, say: Say) -> str:
    """Finish or undo one decision; what came of it."""
    which = f"decision {record.number}"
    try:
        decision = read(record)
    except PromotionError:
        drop(client(), record.run_id, "changed")
        return f"{which} was interrupted, and its file was changed since (run {record.run_id}): it is dropped"
    if decision is None:
        drop(client(), record.run_id, "never written")
        return f"{which} was begun and never written: it is dropped"
    undone = _undone(model, record, decision)
    if undone:
        return f"{which} was interrupted, and {undone}"
    try:
        finish(decision, record.run_id, say)
    except (OvertakenError, ChampionChangedError) as error:
        return f"{which} was interrupted: {error.args[0]}"
    return f"{which} ({decision.outcome}) was interrupted: it is finished now"


def _undone(model: str, record: Record, decision: Decision) -> str:
    """Why a decision that moves the champion cannot be finished, and what was done instead; empty where it can be."""
    if decision.outcome not in MOVING or decision.chosen is None:
        return ""
    found, old, new = read_model(model), decision.champion, decision.chosen
    known = {old.version if old else None, new.version}
    gone = [each for each in (old, new) if each is not None and found.version(each.version) is None]
    if gone:  # MLflow drops a version's aliases with it
        known.add(None)
    if found.aliases.get(CHAMPION) not in known:
        drop(client(), record.run_id, "overtaken")
        return "the champion has changed since: it is dropped"
    if new in gone:
        _undo(found, decision)
        drop(client(), record.run_id, "version deleted")
        return f"version {new.version} was deleted since: it is undone"
    return ""


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
        decision = readable(record)
        if decision is not None and decision.outcome in MOVING:
            return decision.champion.version if decision.champion is not None else None
    return None
