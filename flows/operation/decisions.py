"""Decisions that a person makes in the middle of a run: a flow suspends and asks, ``preflow decide`` answers.

A run that asks has no process and holds no slot. The answer is kept with the run, and the run starts again from its
beginning, where finished stages are cached and the same question returns the answer.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import StringConstraints

from preflow.errors import ConfigError

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_DAYS = 14
_PREFIX = "suspended-"
_MOST = 50


class Verdict(RunInput):
    """What is answered: nothing has a default, so that nothing is left out."""

    approve: bool
    by: _Text
    reason: _Text


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer.

    Attributes:
        approved: What was decided.
        by: Who decided.
        reason: Why.
    """

    approved: bool
    by: str
    reason: str


def ask_for_decision(question: str, key: str, days: int = _DAYS) -> Decision:
    """Suspend this flow run until a person has decided; the answer, where it was given already.

    To be called by a flow of a deployment, outside its tasks: Prefect starts the run again by its worker.

    Args:
        question: What is to be decided, with what it can be decided by.
        key: Names the question within the flow; each is asked once.
        days: After so many a run that was not answered fails.
    """
    asked = Verdict.with_initial_data(description=question)
    found = suspend_flow_run(wait_for_input=asked, timeout=days * 24 * 3600, key=key)
    return Decision(found.approve, found.by, found.reason)


def decide(run: str, approve: bool, by: str, reason: str) -> FlowRun:
    """Answer a run that asks.

    Args:
        run: Its id or its name.
        approve: The decision.
        by: Who decides.
        reason: Why.

    Raises:
        ConfigError: There is no such run, it asks nothing, it was answered, or the answer is incomplete.
    """
    if not by.strip() or not reason.strip():
        raise ConfigError("a decision needs a name and a reason: give --by NAME --reason TEXT")
    with get_client(sync_client=True) as client:
        found = _find(client, run)
        _require_question(client, found)
        answer = {"approve": approve, "by": by.strip(), "reason": reason.strip()}
        result = client.resume_flow_run(found.id, run_input=answer)
    if result.status is not SetStateStatus.ACCEPT:
        why = getattr(result.details, "reason", None) or "it asks nothing any more"
        raise ConfigError(f"{found.name} did not take the answer: {why}")
    return found


def question_of(run: str) -> str:
    """What a run asks.

    Raises:
        ConfigError: As ``decide``.
    """
    with get_client(sync_client=True) as client:
        found = _find(client, run)
        return _require_question(client, found)


def waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs that wait for a decision."""
    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    return [run for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=paused)) if _keyset(run)]


def _find(client: SyncPrefectClient, run: str) -> FlowRun:
    if _is_id(run):
        try:
            return client.read_flow_run(UUID(run))
        except ObjectNotFound as error:
            raise ConfigError(f"the Prefect server has no run {run}: preflow operate show lists what asks") from error
    named = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
    if len(named) != 1:
        count = f"{len(named)} runs" if named else "no run"
        raise ConfigError(
            f"the Prefect server has {count} of the name {run}: give its id, as preflow operate show does"
        )
    return named[0]


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _keyset(run: FlowRun) -> dict[str, str] | None:
    state = run.state
    return state.state_details.run_input_keyset if state is not None and state.is_paused() else None


def _require_question(client: SyncPrefectClient, run: FlowRun) -> str:
    """The question of a run that asks for a decision and has no answer yet."""
    keys = _keyset(run)
    if keys is None:
        if given := _answers(client, run):
            last = given[-1]
            what = "approved" if last["approve"] else "rejected"
            raise ConfigError(f"{run.name} was answered already: {what} by {last['by']} ({last['reason']})")
        state = run.state.name if run.state else "unknown"
        raise ConfigError(f"{run.name} asks nothing: its state is {state}")
    schema = json.loads(client.read_flow_run_input(run.id, keys["schema"]))
    if set(schema.get("properties", {})) != set(Verdict.model_fields):
        raise ConfigError(f"{run.name} asks for something else than a decision: answer it in Prefect's page")
    try:
        return _text(client.read_flow_run_input(run.id, keys["description"]))
    except httpx.HTTPStatusError:  # a question without a text
        return ""


def _text(kept: str) -> str:
    """A question as it was asked; Prefect keeps it as JSON."""
    return str(json.loads(kept)) if kept.startswith('"') else kept


def _answers(client: SyncPrefectClient, run: FlowRun) -> list[dict[str, Any]]:
    """What a run was answered, oldest first."""
    inputs = client.filter_flow_run_input(run.id, key_prefix=_PREFIX, limit=_MOST, exclude_keys=set())
    found = sorted((each for each in inputs if each.key.endswith("-response")), key=lambda each: str(each.created))
    values = [json.loads(each.value) for each in found]
    return [value for value in values if set(value) == set(Verdict.model_fields)]
