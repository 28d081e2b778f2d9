"""Taking a decision: written first, then the aliases are moved, read back and compared.

A process that ends between two steps leaves a run that is called running: the next start finishes it where the decision
was written, and undoes it where it was not. MLflow has no compare-and-set: on one machine a lock makes decisions take
turns; two machines see each other's runs, of which one gives way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock

from preflow.environment import preflow_home
from preflow.errors import ChampionChangedError
from preflow.fingerprints.files import json_digest
from tasks.tracking.client import client, set_tags
from tasks.tracking.lineage import heartbeat_tags, is_gone, process_tags
from tasks.tracking.registry.cards import renew_cards
from tasks.tracking.registry.decisions import FILE, MOVING, Decision, Draft, Place, Record, read, records, taken
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, RegisteredModel, read_model


@contextmanager
def one_at_a_time(model: str) -> Iterator[None]:
    """Hold the lock of a registered model: on this machine, its decisions take turns."""
    folder = preflow_home() / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{json_digest(model)[:16]}.lock"):
        yield


def take(draft: Draft, experiment_id: str) -> Decision:
    """Take a decision: record it, and move the aliases as decided.

    Args:
        draft: What is decided, with the champion that it was decided against.
        experiment_id: Where its run is made.

    Raises:
        ChampionChangedError: The champion is not the one that the decision was made against, or another decision was
            taken at the same time.
        PromotionError: An earlier decision was changed.
    """
    with one_at_a_time(draft.model):
        recover(draft.model)
        _require_champion(draft, read_model(draft.model))
        before = taken(draft.model)
        decision = Decision(
            **draft.model_dump(),
            number=before[-1].number + 1 if before else 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            previous=before[-1].digest if before else None,
        )
        run_id = _begin(decision, experiment_id)
        _finish(decision, run_id)
    return decision


def _require_champion(draft: Draft, found: RegisteredModel) -> None:
    now = found.aliases.get(CHAMPION)
    expected = draft.champion.version if draft.champion else None
    if now != expected:
        raise ChampionChangedError(
            f"the champion of {draft.model} changed meanwhile: it was {_said(expected)} and is {_said(now)}. "
            "Ask again, so that the challenger is compared with it"
        )


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


def _finish(decision: Decision, run_id: str) -> None:
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
    renew_cards(decision)
    store.set_terminated(run_id, "FINISHED")


def _move(store: Any, model: str, old: Place | None, new: Place) -> None:
    if old is not None and old.version != new.version:
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
    said = []
    for record in records(model):
        if record.status != "RUNNING" or not is_gone(record.tags):
            continue
        decision = read(record)
        if decision is None:
            _drop(client(), record.run_id, "never written")
            said.append(f"decision {record.number} was begun and never written: it is dropped")
            continue
        now = read_model(model).aliases.get(CHAMPION)
        known = {place.version if place else None for place in (decision.champion, decision.chosen)}
        if decision.outcome in MOVING and now not in known:
            _drop(client(), record.run_id, "overtaken")
            said.append(f"decision {record.number} was interrupted, and the champion has changed since: it is dropped")
            continue
        _finish(decision, record.run_id)
        said.append(f"decision {record.number} ({decision.outcome}) was interrupted: it is finished now")
    return said
