"""The Prefect server: whether it answers, agrees, serves its page, keeps slots, schedules, and has a worker."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import httpx
import prefect
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.health.check import Check, failed, ok, warning
from flows.health.notifications import check_automations
from flows.running.addresses import tls
from preflow.redaction import without_login
from tasks.tracking.lineage import heartbeat_seconds

_ANSWER_SECONDS = 3.0
#: The server looks for changed deployments every five seconds; a busy one is not to be taken for a broken one.
_SCHEDULER_SECONDS = 30.0
#: Days until the trial's first run, which never comes: within the 100 days for which the server makes runs.
_FAR = 30
_PROBE = "preflow-doctor"
_MEMORY = "prefect.server.concurrency.lease_storage.memory"
_FILESYSTEM = "prefect.server.concurrency.lease_storage.filesystem"


def check_prefect(pool: str) -> Iterator[Check]:
    """Everything about the server that PREFECT_API_URL names; one line where none is named.

    Args:
        pool: The work pool in which a worker is looked for.
    """
    address = PREFECT_API_URL.value()
    if not address:
        yield ok("Prefect", "no server is named (PREFECT_API_URL); a run starts one of its own, without schedules")
        return
    shown = without_login(address)
    try:
        health = httpx.get(f"{address}/health", timeout=_ANSWER_SECONDS, verify=tls())
    except httpx.HTTPError as error:
        yield failed("Prefect", f"{shown} does not answer: {error}", "start the server, or unset PREFECT_API_URL")
        return
    if not health.is_success:
        yield failed("Prefect", f"{shown} answers {health.status_code}", "give its address, which ends in /api")
        return
    yield check_clock(health.headers.get("date"), datetime.now(UTC))
    with get_client(sync_client=True) as client:
        try:
            version = client.request("GET", "/admin/version").raise_for_status().json()
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            refused = code in (401, 403)
            remedy = "set PREFECT_API_AUTH_STRING to the server's own" if refused else "look at the server's log"
            yield failed("Prefect", f"{shown} answers {code}{', it refuses this login' if refused else ''}", remedy)
            return
        yield check_same_version(shown, version)
        yield check_page(address)
        yield check_slots(client.request("GET", "/admin/settings").raise_for_status().json())
        yield check_scheduler(client)
        yield check_workers(client, pool)
        yield check_running(client, datetime.now(UTC))
        yield check_automations(client)


def check_same_version(address: str, version: str) -> Check:
    """The server has this installation's version of Prefect: another one may not take its requests."""
    if version != prefect.__version__:
        found = f"{address} has version {version}, this installation {prefect.__version__}"
        return failed("Prefect", found, "install the same version on both sides (constraints.txt)")
    return ok("Prefect", f"{address}, version {version}")


def check_clock(date: str | None, here: datetime) -> Check:
    """Whether this clock and the server's differ by less than a heartbeat, by which dead runs are recognized.

    Args:
        date: The header of the server's answer; it has whole seconds.
        here: Now, by this machine.
    """
    if date is None:
        return warning("clock", "the server sends no date", "compare the clocks of both machines")
    apart = abs((parsedate_to_datetime(date) - here).total_seconds())
    if apart > heartbeat_seconds():
        return failed("clock", f"{apart:.0f} s apart from the Prefect server's", "synchronize both clocks (NTP)")
    return ok("clock", "agrees with the Prefect server's")


def check_page(address: str) -> Check:
    """Whether the server serves its page, and whether that asks the right address."""
    base = address.removesuffix("/api")
    try:
        page = httpx.get(
            base + "/", timeout=_ANSWER_SECONDS, follow_redirects=True, headers={"Accept": "text/html"}, verify=tls()
        )
        settings = httpx.get(f"{base}/ui-settings", timeout=_ANSWER_SECONDS, verify=tls())
    except httpx.HTTPError as error:
        return failed("Prefect's page", f"does not answer: {error}", "look at the server's log")
    if page.status_code == httpx.codes.NOT_FOUND:
        remedy = "set PREFECT_UI_STATIC_DIRECTORY to a folder that the server may write, and start it again"
        return failed("Prefect's page", f"{without_login(base)}/ answers 404", remedy)
    asked = settings.json().get("api_url") if settings.is_success else None
    if asked and httpx.URL(asked).port != httpx.URL(address).port and httpx.URL(asked).host == httpx.URL(address).host:
        remedy = f"start the server with PREFECT_UI_API_URL={without_login(address)}"
        return failed("Prefect's page", f"asks {asked}, where this server is not", remedy)
    return ok("Prefect's page", without_login(base))


def check_slots(settings: dict[str, Any]) -> Check:
    """Whether the slots of running trainings outlive a restart of the server.

    Args:
        settings: The server's own, as it shows them.
    """
    storage = settings.get("server", {}).get("concurrency", {}).get("lease_storage")
    if storage == _MEMORY:
        remedy = f"start the server with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={_FILESYSTEM}"
        return warning("slots", "are kept in the server's memory: a restart of it ends running trainings", remedy)
    return ok("slots", "outlive a restart of the server")


def check_scheduler(client: SyncPrefectClient, seconds: float = _SCHEDULER_SECONDS) -> Check:
    """Whether the server makes runs of a schedule: a deployment of our own, which fires in a month, for some seconds.

    Args:
        client: Of the server.
        seconds: How long its first run is waited for.
    """
    name = "scheduler"

    @flow(name=_PROBE)
    def probe() -> None:
        """Never run."""

    far = IntervalSchedule(interval=timedelta(days=365), anchor_date=datetime.now(UTC) + timedelta(days=_FAR))
    made = client.create_flow(probe)
    deployment = client.create_deployment(
        made,
        _PROBE,
        schedules=[DeploymentScheduleCreate(schedule=far, active=True)],
        tags=["preflow", _PROBE],
    )
    try:
        if _until(lambda: bool(_scheduled(client, deployment)), seconds):
            return ok(name, "makes the runs of a schedule")
    finally:
        for run in _scheduled(client, deployment):
            client.delete_flow_run(run)
        client.delete_deployment(deployment)
        client.delete_flow(made)
    remedy = "look for errors of schedule_deployments in the server's log; SQLAlchemy must be below 2.1 there"
    return failed(name, f"made no run of a schedule within {seconds:.0f} s", remedy)


def _scheduled(client: SyncPrefectClient, deployment: UUID) -> list[UUID]:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    )
    return [run.id for run in found]


def _until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def check_workers(client: SyncPrefectClient, pool: str) -> Check:
    """Whether a worker of the pool is there.

    Args:
        client: Of the server.
        pool: The work pool.
    """
    start = f"preflow worker --pool {pool}"
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        return warning("worker", f"there is no work pool {pool}", f"preflow deploy makes it; then {start}")
    if found.is_paused:
        return failed("worker", f"the work pool {pool} is paused", f"prefect work-pool resume {pool}")
    online = [found.name for found in client.read_workers_for_work_pool(pool) if found.status == "ONLINE"]
    if not online:
        return warning("worker", f"none of the work pool {pool} is there: no run will start", start)
    return ok("worker", f"{len(online)} in {pool}: {', '.join(online)}")


def check_running(client: SyncPrefectClient, now: datetime) -> Check:
    """Runs that are late: due for a minute and not begun, while nothing else runs.

    Args:
        client: Of the server.
        now: The time.
    """
    types = [StateType.SCHEDULED, StateType.RUNNING]
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
    )
    running = [run for run in found if run.state_type is StateType.RUNNING]
    due = now - timedelta(minutes=1)
    late = [run for run in found if run.state_type is StateType.SCHEDULED and (run.expected_start_time or now) < due]
    if late and not running:
        return warning(
            "runs", f"{len(late)} are late and none runs", "start a worker, or delete them in Prefect's page"
        )
    return ok("runs", f"{len(running)} running, {len(late)} waiting")
