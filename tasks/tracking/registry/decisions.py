"""Decisions on a registered model: each a run of MLflow of its own, with the digest of the one before.

MLflow's aliases have no history; these runs are it. What a run records is a chain that shows if a part was changed.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, JsonValue

from preflow.config.base import Frozen
from preflow.errors import PromotionError
from tasks.tracking.client import client
from tasks.tracking.run_files import read_text

FILE = "decision.json"
#: What a decision came to; of these, the first two move the champion.
Outcome = Literal["promoted", "rolled_back", "eligible", "refused", "inconclusive", "rejected"]
MOVING = ("promoted", "rolled_back")
_PAGE = 500


class Place(Frozen):
    """A version that a decision names."""

    version: int
    artifact_digest: str
    run_id: str = ""
    """The pipeline run that registered it; empty in decisions of before, which no card names."""


class Draft(Frozen):
    """What is decided."""

    model: str
    """The registered model's name."""
    outcome: Outcome
    champion: Place | None
    """The champion before; none where there was none."""
    chosen: Place | None
    """The version that was decided on: the challenger, or what is rolled back to."""
    reasons: tuple[str, ...] = ()
    """Why, in sentences."""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    """What it rests on: measures, their test, the level, guards."""
    by: str = ""
    """Who approved it; empty where no person was asked."""
    reason: str = ""
    """Why that person did."""
    identity: Literal["", "declared", "login"] = ""
    """Whether the name is that of the login to MLflow, or one that was given."""


class Decision(Draft):
    """A decision that was taken."""

    number: int
    """From 1, without gaps."""
    at: str
    """When, in UTC."""
    previous: str | None
    """Digest of the decision before; none of the first."""
    broken: tuple[str, ...] = ()
    """What was wrong with the decisions before, where this one begins anew after them."""

    def text(self) -> str:
        """The file of the decision, the same bytes for the same decision."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def described(decision: Decision) -> str:
    """A decision for people, as Markdown: what it came to, why, and who approved it."""
    head = f"Decision {decision.number} on {decision.model}: {decision.outcome}"
    version = f", version {decision.chosen.version}" if decision.chosen else ""
    champion = f"The champion before was version {decision.champion.version}." if decision.champion else ""
    said = f"{decision.by} ({decision.identity}): {decision.reason}" if decision.by else ""
    parts = (f"{head}{version}", "\n".join(f"- {each}" for each in decision.reasons), said, champion)
    return "\n\n".join(part for part in parts if part)


class Record(Frozen):
    """A decision as MLflow has it."""

    run_id: str
    status: str
    """MLflow's: ``RUNNING`` until the aliases are as decided."""
    number: int
    digest: str
    """Of its file, as its run's tag says it."""
    tags: dict[str, str]
    started: int


def records(model: str) -> list[Record]:
    """The decisions on a registered model, whatever came of them, oldest first."""
    store = client()
    experiments = [each.experiment_id for each in store.search_experiments()]
    wanted = f"tags.kind = 'decision' and tags.registered_model = '{model}'"
    found, token = [], None
    while True:
        page = store.search_runs(experiments, wanted, max_results=_PAGE, page_token=token)
        found += [_record(run) for run in page if run.data.tags["registered_model"] == model]
        token = page.token
        if not token:
            return sorted(found, key=lambda each: (each.number, each.started, each.run_id))


def taken(model: str) -> list[Record]:
    """The decisions that count, oldest first: those of which everything was done."""
    return [each for each in records(model) if each.status == "FINISHED"]


def _record(run: Any) -> Record:
    tags = run.data.tags
    return Record(
        run_id=run.info.run_id,
        status=run.info.status,
        number=int(tags.get("decision", "0")),
        digest=tags.get("decision_digest", ""),
        tags=dict(tags),
        started=run.info.start_time,
    )


def read(record: Record) -> Decision | None:
    """The decision of a record; none where the process ended before it was written.

    Raises:
        PromotionError: The file is not what the record's digest says.
    """
    text = read_text(client().get_run(record.run_id), FILE)
    if text is None:
        return None
    if hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest() != record.digest:
        raise PromotionError(
            f"decision {record.number} was changed: {FILE} of run {record.run_id} has another digest than its tag. "
            "Restore the file, or delete that run if it was not a decision"
        )
    return Decision.model_validate_json(text)


class Chain(Frozen):
    """The decisions on a registered model, with where they do not follow each other."""

    links: tuple[tuple[Record, Decision], ...]
    """Those that count and can be read, oldest first."""
    breaks: tuple[str, ...]
    """Decisions that are missing or were changed, each in a sentence; without those that a later one records."""
    recorded: tuple[str, ...]
    """Those that a later one records."""


def chain(model: str) -> list[tuple[Record, Decision]]:
    """All decisions that count, oldest first.

    Raises:
        PromotionError: One is missing or was changed; names the first.
    """
    found = followed(model)
    if found.breaks:
        raise PromotionError(found.breaks[0])
    return list(found.links)


def followed(model: str) -> Chain:
    """All decisions that count, each held to its digest and to the one before it."""
    links: list[tuple[Record, Decision]] = []
    breaks: list[str] = []
    recorded: list[str] = []
    before: Record | None = None
    for record in taken(model):
        try:
            decision = read(record)
        except PromotionError as error:
            breaks.append(error.message)
        else:
            number = 1 if before is None else before.number + 1
            previous = None if before is None else before.digest
            begins = decision is not None and bool(decision.broken)
            if decision is None or not (begins or (record.number == number and decision.previous == previous)):
                breaks.append(
                    f"the decisions on {model} are no chain: number {number} does not follow the one before it (run "
                    f"{record.run_id}). Restore the run that is missing (mlflow runs restore), then ask again"
                )
            if decision is not None:
                links.append((record, decision))
                recorded += decision.broken
        before = record
    unknown = tuple(each for each in breaks if each not in recorded)
    return Chain(links=tuple(links), breaks=unknown, recorded=tuple(recorded))


def readable(record: Record) -> Decision | None:
    """The decision of a record; none where it was not written, or was changed."""
    try:
        return read(record)
    except PromotionError:
        return None
