"""What Prefect still calls running although its process has ended: set to Crashed at the next start."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

_SKIPPED = "Skipped: a later firing of the same schedule waits already."
_MESSAGE = "The process of this run has ended: no heartbeat, or no process of its id."


def close_in_prefect(flow_run_ids: Iterable[str], current: str | None = None) -> None:
    """Set task runs of dead processes, and their flow runs, to Crashed.

    Args:
        flow_run_ids: Prefect's ids of flow runs whose process has ended.
        current: The flow run of this process: what an earlier attempt of it left running is closed, itself not.
    """
    ids = {*flow_run_ids, *([current] if current else [])}
    with get_client(sync_client=True) as client:
        for flow_run_id in ids:
            close_task_runs(client, UUID(flow_run_id))
            if flow_run_id == current:
                continue
            try:
                state = client.read_flow_run(UUID(flow_run_id)).state
            except ObjectNotFound:  # deleted, or of another server
                continue
            if state is not None and state.type is StateType.RUNNING:
                client.set_flow_run_state(UUID(flow_run_id), Crashed(message=_MESSAGE), force=True)


def close_task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """Set the task runs of a flow run that are called running to Crashed."""
    left = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))),
    )
    for task_run in left:
        client.set_task_run_state(task_run.id, Crashed(message=_MESSAGE), force=True)


def skip_waiting(deployment_id: str) -> int:
    """Cancel runs of a schedule that piled up, but for the latest; how many.

    Args:
        deployment_id: The deployment whose runs wait.
    """
    with get_client(sync_client=True) as client:
        scheduled = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[UUID(deployment_id)]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            )
        )
        skipped = superseded(scheduled, datetime.now(UTC))
        for run in skipped:
            client.set_flow_run_state(run.id, Cancelled(message=_SKIPPED), force=True)
    return len(skipped)


def superseded(scheduled: Iterable[FlowRun], now: datetime) -> list[FlowRun]:
    """Runs that a schedule made, that are due, and after which it made another that is due.

    Runs that a person asked for, and those that a worker handed back, have begun or have their own settings: they stay.
    """
    due: dict[str, list[FlowRun]] = {}
    for run in scheduled:
        if run.auto_scheduled and run.run_count == 0 and run.expected_start_time and run.expected_start_time <= now:
            due.setdefault(str(sorted(run.parameters.items())), []).append(run)
    return [run for runs in due.values() for run in sorted(runs, key=lambda run: str(run.expected_start_time))[:-1]]
