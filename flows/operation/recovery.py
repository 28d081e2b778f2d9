"""Runs whose process was killed go back to their pool: a worker looks for them as long as it runs.

Prefect's worker notices only the end of what it started itself, and only while it lives: after a reboot such a run
would be called running for ever.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

import httpx
from filelock import FileLock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.operation.process_records import flow_run_processes, forget, killed_runs, record_starting, was_starting
from flows.running.reconcile import close_in_prefect, close_task_runs
from preflow.environment import preflow_home
from preflow.errors import TrackingError
from tasks.tracking.client import away_is_a_tracking_error, require_mlflow
from tasks.tracking.client import client as mlflow_client
from tasks.tracking.delivery import deliver_left_behind
from tasks.tracking.lineage import heartbeat_seconds
from tasks.tracking.outbox import outboxes_folder
from tasks.tracking.pipeline_run import dead_runs, end_runs

#: Times that a killed run goes on by itself: what kills it each time, such as too little memory, needs a person.
_RESTARTS = 3
_HANDED_BACK = "Its process was killed; it goes on from its last checkpoint."
_GIVEN_UP = "Its process was killed {count} times: look for what kills it (memory?), then run it again; it goes on."
#: How Prefect says that a process was killed, by itself or by a shell above it; another end while starting is an error.
_BY_KILL = re.compile(r"status code:? (-9|137)\b")
#: Seconds between two looks for runs that are starting, which takes them ten and more.
_LOOK_SECONDS = 2.0
_NO_WORKER = "Its process was killed; run it again, it goes on from its last checkpoint."


def restarts() -> int:
    """How often a killed run goes on by itself."""
    return int(os.environ.get("PREFLOW_RESTARTS", _RESTARTS))


def watch(ended: threading.Event, say: Callable[[str], None]) -> None:
    """Look for killed runs at every heartbeat, until ``ended`` is set.

    Args:
        ended: Set when the worker stops.
        say: Tells the user what was found.
    """
    dead: set[str] = set()
    while not ended.is_set():
        with suppress(httpx.HTTPError):  # Prefect is away, which its worker says: checked again
            for line in recover():
                say(line)
        deliver_what_waits(say)
        dead = close_silent_runs(dead)
        _look_for_starts(ended)


def _look_for_starts(ended: threading.Event) -> None:
    """Until the next heartbeat, write down which processes start runs."""
    deadline = time.monotonic() + heartbeat_seconds()
    while not ended.is_set() and time.monotonic() < deadline:
        record_starting()
        ended.wait(min(_LOOK_SECONDS, heartbeat_seconds()))


def recover() -> Iterator[str]:
    """Give each killed run of this home folder back to its pool, or close it; what was done, in words."""
    killed = killed_runs()
    if not killed:
        return
    reporting = {flow_run_id for _, flow_run_id in flow_run_processes()}
    with get_client(sync_client=True) as client:
        for flow_run_id in killed:
            if flow_run_id in reporting:  # what started it lives and is about to say that it crashed
                continue
            with suppress(ObjectNotFound):  # deleted, or of another server
                yield from _recover(client, client.read_flow_run(UUID(flow_run_id)))
            forget(flow_run_id)


def _recover(client: SyncPrefectClient, run: FlowRun) -> Iterator[str]:
    state = run.state.type if run.state is not None else None
    if state not in (StateType.RUNNING, StateType.PENDING, StateType.CRASHED, StateType.CANCELLING):
        return
    message = (run.state.message if run.state is not None else None) or ""
    if state is StateType.CRASHED and was_starting(str(run.id)) and not _BY_KILL.search(message):
        return  # it could not start, and would not the next time
    close_task_runs(client, run.id)
    if state is StateType.CANCELLING:
        client.set_flow_run_state(run.id, Cancelled(), force=True)
        return
    count = sum(state.message == _HANDED_BACK for state in client.read_flow_run_states(run.id))
    if run.deployment_id is None:
        client.set_flow_run_state(run.id, Crashed(message=_NO_WORKER), force=True)
    elif count < restarts():
        client.set_flow_run_state(run.id, AwaitingRetry(message=_HANDED_BACK), force=True)
        yield f"{run.name}: its process was killed; it goes back to the pool ({count + 1} of {restarts()})"
    else:
        client.set_flow_run_state(run.id, Crashed(message=_GIVEN_UP.format(count=count + 1)), force=True)
        yield f"{run.name}: its process was killed {count + 1} times; it is not started again"


def deliver_what_waits(say: Callable[[str], None]) -> None:
    """Deliver what ended runs of this home folder have for MLflow, which was away until they ended.

    Else they would be found dead: MLflow was never told how they ended.
    """
    if not any(outboxes_folder().glob("*/run.json")):
        return

    def delivered(message: str, *, warning: bool = False) -> None:
        if not warning:  # what waits for another server is said by each start and by `preflow sync`
            say(message)

    with suppress(TrackingError):  # it is away: tried again
        require_mlflow()
        with away_is_a_tracking_error():
            deliver_left_behind(delivered)


def close_silent_runs(before: set[str]) -> set[str]:
    """Close, in MLflow and Prefect, runs that two checks in a row found dead; those found now.

    One check is not enough: when MLflow is back after an outage, living runs elsewhere have yet to send a heartbeat.

    Args:
        before: Runs that the check before this one found.
    """
    try:
        require_mlflow()
        # The lock: a start is not reopening one of them meanwhile.
        with away_is_a_tracking_error(), FileLock(preflow_home() / "pipeline_run.lock"):
            store = mlflow_client()
            found = dead_runs(store)
            closed = {run_id: flow_run for run_id, flow_run in found.items() if run_id in before}
            end_runs(store, closed)
        close_in_prefect({flow_run for flow_run in closed.values() if flow_run is not None})
    except (TrackingError, httpx.HTTPError):  # one of the servers is away: checked again
        return set()
    return found.keys() - closed.keys()
