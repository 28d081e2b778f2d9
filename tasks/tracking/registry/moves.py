"""Taking a decision: written first, then the aliases are moved, read back and compared.

A process that ends between two steps leaves a run that is called running: the next start finishes it where the decision
was written, and undoes it where it was not. MLflow has no compare-and-set: on one machine a lock makes decisions take
turns; two machines see each other's runs, of which one gives way. Nothing that can be deleted or go missing keeps a
decision open for ever: one whose version is gone is undone, and a model card that cannot be renewed is named.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock

from preflow.environment import preflow_home
from preflow.errors import ChampionChangedError, PromotionError
from preflow.fingerprints.files import json_digest
from tasks.tracking.client import client
from tasks.tracking.lineage import heartbeat_tags, process_tags
from tasks.tracking.registry.decisions import (
    FILE,
    MOVING,
    Decision,
    Draft,
    described,
    followed,
    taken,
)
from tasks.tracking.registry.finishing import OvertakenError, Say, finish, in_words
from tasks.tracking.registry.integrity import require_whole
from tasks.tracking.registry.recovery import recover
from tasks.tracking.registry.versions import CHAMPION, RegisteredModel, read_model
from tasks.tracking.run_files import write_text

_LOGGER = logging.getLogger(__name__)
#: How often a decision is numbered anew where another machine's has its number.
_ATTEMPTS = 10
#: Characters of a description that MLflow keeps in a tag, with some to spare.
_DESCRIPTION = 5000


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
        PromotionError: An earlier decision is missing or was changed, which a rollback alone may follow; the version
            was deleted or changed since it was decided on.
    """
    with one_at_a_time(draft.model):
        recover(draft.model)
        for _ in range(_ATTEMPTS):
            found = read_model(draft.model)
            _require_champion(draft, found)
            _require_chosen(draft, found, say)
            decision = _next(draft)
            run_id = _begin(decision, experiment_id)
            try:
                finish(decision, run_id, say)
            except OvertakenError as error:
                if error.moves and draft.outcome in MOVING:
                    raise ChampionChangedError(str(error)) from None
                continue  # where nothing moved, what was decided holds
            return decision
    raise ChampionChangedError(
        f"other machines took {_ATTEMPTS} decisions on {draft.model} while one was to be recorded: ask again"
    )


def _next(draft: Draft) -> Decision:
    """The decision with its number and the digest of the one before; a rollback records what is wrong with those.

    Raises:
        PromotionError: One before is missing or was changed, and this is no rollback.
    """
    before, broken = taken(draft.model), followed(draft.model).breaks
    if broken and draft.outcome != "rolled_back":
        raise PromotionError(broken[0])
    anew = [f"the decisions before are not whole, and this begins anew: {each}" for each in broken]
    reasons = (*draft.reasons, *anew)
    return Decision(
        **draft.model_copy(update={"reasons": reasons}).model_dump(),
        number=before[-1].number + 1 if before else 1,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=before[-1].digest if before else None,
        broken=broken,
    )


def _require_champion(draft: Draft, found: RegisteredModel) -> None:
    now = found.aliases.get(CHAMPION)
    expected = draft.champion.version if draft.champion else None
    if now != expected:
        raise ChampionChangedError(
            f"the champion of {draft.model} changed meanwhile: it was {in_words(expected)} and is {in_words(now)}. "
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


def _begin(decision: Decision, experiment_id: str) -> str:
    store = client()
    tags = {
        "kind": "decision",
        "registered_model": decision.model,
        "decision": str(decision.number),
        "decision_digest": decision.digest(),
        "outcome": decision.outcome,
        "mlflow.note.content": described(decision)[:_DESCRIPTION],  # what MLflow's page of the run shows
        **_compared(decision),
        **process_tags(),
        **heartbeat_tags(),
    }
    name = f"decision-{decision.number}-{decision.outcome}"
    run = store.create_run(experiment_id, tags=tags, run_name=name)
    write_text(run, FILE, decision.text())
    return str(run.info.run_id)


def _compared(decision: Decision) -> dict[str, str]:
    """Tags by which later decisions count those on one held-out set."""
    return {
        name: str(decision.evidence[name]) for name in ("held_out_digest", "comparison") if name in decision.evidence
    }
