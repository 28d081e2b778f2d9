"""Deployments of the pipeline: one recipe on a Prefect server, run by a worker on a schedule or when asked."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema

from flows.running.addresses import require_prefect
from preflow.errors import ConfigError

#: A run is a process in the worker's folder, which hands the run back on SIGTERM (see ``preflow worker``).
#: It asks a server that is away for half an hour, not for a minute. A deployment's own concurrency limit would be a
#: lease, whose loss ends the training: how many runs a machine does at once is for its worker to say.
JOB = {
    "working_dir": ".",
    "command": "prefect flow-run execute",
    "env": {"PREFECT_CLIENT_MAX_RETRIES": "10"},
}
_ENTRYPOINT = "flows.two_stage.two_stage"
_POLL_SECONDS = 2.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def schedule(cron: str | None, every: str | None) -> CronSchedule | IntervalSchedule | None:
    """A schedule by a cron line or by an interval (``30m``, ``6h``, ``1d``); none where neither is given.

    Raises:
        ConfigError: Both are given, or one cannot be read.
    """
    if cron and every:
        raise ConfigError("--cron and --every: expected one of them")
    if every:
        found = re.fullmatch(r"(\d+)\s*([smhd])", every.strip())
        if found is None or int(found[1]) == 0:
            raise ConfigError(f"--every {every}: expected a number with s, m, h or d, for example --every 6h")
        return IntervalSchedule(interval=timedelta(seconds=int(found[1]) * _UNITS[found[2]]))
    if cron:
        try:
            return CronSchedule(cron=cron, timezone="UTC")
        except ValueError as error:
            raise ConfigError(f'--cron {cron}: expected five fields, for example --cron "0 2 * * *"') from error
    return None


def require_server() -> None:
    """Deployments need a server that outlives a command.

    Raises:
        ConfigError: None is configured, or it does not answer.
    """
    if not PREFECT_API_URL.value():
        raise ConfigError("no Prefect server is configured: set PREFECT_API_URL, for example http://127.0.0.1:4200/api")
    require_prefect()


def deployment_name(recipe: str) -> str:
    """The name of a recipe's deployment where none is given."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-")


def deploy(
    flow: Flow[..., Any],
    recipe: str,
    name: str,
    overrides: Mapping[str, Any],
    when: CronSchedule | IntervalSchedule | None,
    pool: str,
    description: str,
) -> UUID:
    """Make or update a deployment.

    Args:
        flow: The pipeline.
        recipe: The recipe's file as the worker finds it, or the name of a packaged one.
        name: The deployment's name.
        overrides: Settings that win over the recipe's.
        when: Its schedule; an earlier one is replaced.
        pool: The work pool, made where it is missing.
        description: Shown in Prefect.
    """
    with get_client(sync_client=True) as client:
        _require_pool(client, pool)
        return client.create_deployment(
            client.create_flow(flow),
            name,
            schedules=[] if when is None else [DeploymentScheduleCreate(schedule=when, active=True)],
            parameters={"recipe": recipe, "overrides": dict(overrides) or None},
            description=description,
            work_pool_name=pool,
            tags=["preflow", name],
            path=".",
            entrypoint=_ENTRYPOINT,
            parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "."}}],
            enforce_parameter_schema=True,
            job_variables=JOB,
        )


def _require_pool(client: SyncPrefectClient, pool: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):  # a worker that has just started made it
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))


def submit(name: str, recipe: str, overrides: Mapping[str, Any]) -> FlowRun:
    """Ask for a run of a deployment.

    Args:
        name: The deployment's name.
        recipe: As ``deploy``.
        overrides: Settings that win over the recipe's, in place of the deployment's own.

    Raises:
        ConfigError: There is no such deployment.
    """
    parameters = {"recipe": recipe, **({"overrides": dict(overrides)} if overrides else {})}
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"two-stage/{name}")
        except ObjectNotFound as error:
            raise ConfigError(f"no deployment two-stage/{name}: make it with preflow deploy {recipe}") from error
        return client.create_flow_run_from_deployment(found.id, parameters=parameters, idempotency_key=str(uuid4()))


def watch(flow_run_id: UUID) -> Iterator[str | FlowRun]:
    """What a run logs and the states that it takes, as texts, and at the end the run itself."""
    seen, state = 0, ""
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(flow_run_id)
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])), offset=seen)
            seen += len(logs)
            yield from (log.message for log in logs)
            if run.state is not None and run.state.name != state:
                state = str(run.state.name)
                yield f"{run.name}: {state}"
            if run.state is not None and run.state.is_final() and not logs:
                yield run
                return
            time.sleep(_POLL_SECONDS)


def worker_path(recipe: str, found: Path, packaged: Path) -> str:
    """A recipe as a worker finds it: a packaged one by its name, one's own by its whole path."""
    return found.stem if found.parent == packaged else str(found.resolve())
