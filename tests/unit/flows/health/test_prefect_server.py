"""Each fault of a Prefect server that can be seen beforehand is a line with its remedy."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import prefect
import pytest
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.health import prefect_server
from flows.health.check import Level
from flows.health.prefect_server import (
    check_clock,
    check_page,
    check_prefect,
    check_running,
    check_same_version,
    check_scheduler,
    check_slots,
    check_workers,
)

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
API = "http://127.0.0.1:4200/api"


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    """Every request gets this answer; none leaves this process."""

    def get(url: str, **options: Any) -> httpx.Response:
        with httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True) as client:
            return client.get(url, headers=options.get("headers"))

    monkeypatch.setattr(httpx, "get", get)


def test_without_a_named_server_there_is_one_line() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        (check,) = check_prefect("pool")
    assert check.level is Level.ok
    assert "without schedules" in check.found


def test_a_server_that_is_away_is_one_line_without_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    answering(monkeypatch, away)
    with temporary_settings({PREFECT_API_URL: "http://ada:s3cret@127.0.0.1:1/api"}):
        (check,) = check_prefect("pool")
    assert check.level is Level.failed
    assert "Connection refused" in check.found
    assert "s3cret" not in check.found + check.remedy


def test_an_address_that_is_another_servers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _: httpx.Response(404))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:5000"}):
        (check,) = check_prefect("pool")
    assert (check.level, "404" in check.found, "/api" in check.remedy) == (Level.failed, True, True)


def test_a_login_that_is_refused_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __enter__(self) -> "Refusing":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def request(self, *_: str) -> httpx.Response:
            return httpx.Response(401, request=httpx.Request("GET", API))

    answering(monkeypatch, lambda _: httpx.Response(200))
    monkeypatch.setattr(prefect_server, "get_client", lambda **_: Refusing())
    with temporary_settings({PREFECT_API_URL: API}):
        *_, check = check_prefect("pool")
    assert check.level is Level.failed
    assert "PREFECT_API_AUTH_STRING" in check.remedy


def test_another_version_of_the_server_fails() -> None:
    assert check_same_version(API, prefect.__version__).level is Level.ok
    assert check_same_version(API, "3.1.0").level is Level.failed


@pytest.mark.parametrize(("seconds", "level"), [(29, Level.ok), (31, Level.failed), (-31, Level.failed)])
def test_clocks_agree_to_within_a_heartbeat(monkeypatch: pytest.MonkeyPatch, seconds: int, level: Level) -> None:
    monkeypatch.setenv("PREFLOW_HEARTBEAT_SECONDS", "30")
    assert check_clock("Thu, 01 Jan 2026 12:00:00 GMT", NOW + timedelta(seconds=seconds)).level is level


def test_a_server_that_sends_no_date_is_a_warning() -> None:
    assert check_clock(None, NOW).level is Level.warning


@pytest.mark.parametrize(
    ("page", "asks", "level", "remedy"),
    [
        (200, API, Level.ok, ""),
        (404, API, Level.failed, "PREFECT_UI_STATIC_DIRECTORY"),
        (200, "http://127.0.0.1:4200/api", Level.ok, ""),
        (200, "http://127.0.0.1:9999/api", Level.failed, f"PREFECT_UI_API_URL={API}"),
    ],
    ids=["fine", "in a read-only installation", "as it should", "of another port"],
)
def test_the_page_is_served_and_asks_this_server(
    monkeypatch: pytest.MonkeyPatch, page: int, asks: str, level: Level, remedy: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ui-settings":
            return httpx.Response(200, json={"api_url": asks})
        return httpx.Response(page)

    answering(monkeypatch, answer)
    check = check_page(API)
    assert check.level is level
    assert remedy in check.remedy


def test_slots_in_the_servers_memory_are_a_warning() -> None:
    def settings(storage: str) -> dict[str, Any]:
        return {"server": {"concurrency": {"lease_storage": f"prefect.server.concurrency.lease_storage.{storage}"}}}

    assert check_slots(settings("filesystem")).level is Level.ok
    check = check_slots(settings("memory"))
    assert check.level is Level.warning
    assert "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=" in check.remedy


class FakeServer:
    """What the checks ask of a server: one whose scheduler works or not, one with workers or none."""

    def __init__(self, schedules: bool = True, workers: tuple[tuple[str, str], ...] = (), runs: Any = ()) -> None:
        self.schedules, self.workers, self.runs = schedules, workers, list(runs)
        self.deployments: dict[UUID, bool] = {}
        self.flows: list[UUID] = []

    def create_flow(self, _: object) -> UUID:
        self.flows = [uuid4()]
        return self.flows[0]

    def delete_flow(self, made: UUID) -> None:
        self.flows.remove(made)

    def create_deployment(self, _: UUID, name: str, schedules: Any, **__: Any) -> UUID:
        (made,) = schedules
        first = made.schedule.anchor_date - datetime.now(UTC)
        assert timedelta(days=20) < first < timedelta(days=100), "nothing of it starts, but the server makes its run"
        found = uuid4()
        self.deployments[found] = made.active
        if self.schedules:
            self.runs.append(SimpleNamespace(id=uuid4()))
        return found

    def delete_deployment(self, deployment: UUID) -> None:
        del self.deployments[deployment]

    def delete_flow_run(self, run: UUID) -> None:
        self.runs = [each for each in self.runs if each.id != run]

    def read_flow_runs(self, **_: Any) -> list[Any]:
        return list(self.runs)

    def read_work_pool(self, name: str) -> Any:
        if name != "pool":
            raise ObjectNotFound(http_exc=Exception(name))
        return SimpleNamespace(is_paused=False)

    def read_workers_for_work_pool(self, _: str) -> list[Any]:
        return [SimpleNamespace(name=name, status=status) for name, status in self.workers]


@pytest.mark.parametrize(("works", "level"), [(True, Level.ok), (False, Level.failed)])
def test_a_scheduler_that_makes_no_run_fails_and_nothing_of_the_trial_stays(works: bool, level: Level) -> None:
    server: Any = FakeServer(schedules=works)
    assert check_scheduler(server, seconds=0).level is level
    assert (server.deployments, server.runs, server.flows) == ({}, [], [])


@pytest.mark.parametrize(
    ("pool", "workers", "level", "remedy"),
    [
        ("pool", (("ada", "ONLINE"), ("bob", "OFFLINE")), Level.ok, ""),
        ("pool", (("bob", "OFFLINE"),), Level.warning, "preflow worker --pool pool"),
        ("other", (), Level.warning, "preflow deploy makes it"),
    ],
)
def test_a_pool_without_a_worker_is_a_warning(
    pool: str, workers: tuple[tuple[str, str], ...], level: Level, remedy: str
) -> None:
    server: Any = FakeServer(workers=workers)
    check = check_workers(server, pool)
    assert check.level is level
    assert remedy in check.remedy


def run(kind: StateType, minutes: int) -> Any:
    return SimpleNamespace(state_type=kind, expected_start_time=NOW - timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("runs", "level"),
    [
        ([], Level.ok),
        ([run(StateType.SCHEDULED, 5)], Level.warning),
        ([run(StateType.SCHEDULED, -5)], Level.ok),
        ([run(StateType.SCHEDULED, 5), run(StateType.RUNNING, 9)], Level.ok),
    ],
    ids=["nothing", "late", "in the future", "its turn comes"],
)
def test_runs_that_are_late_while_nothing_runs_are_a_warning(runs: list[Any], level: Level) -> None:
    server: Any = FakeServer(runs=runs)
    assert check_running(server, NOW).level is level
