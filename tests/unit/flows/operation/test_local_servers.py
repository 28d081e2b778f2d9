"""What ``preflow serve`` starts, with which settings; what the environment names elsewhere is used and not started."""

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.operation.local_servers import environment, services, serving
from preflow.errors import UiError
from tests.fixtures.ports import free_port


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with temporary_settings({PREFECT_API_URL: None}):
        yield


def test_both_servers_and_the_worker_start_at_their_ports(home: Path) -> None:
    mlflow, prefect, worker = services(5001, 4201, 8081, "pool", 2)
    assert (mlflow.address, mlflow.health) == ("http://127.0.0.1:5001", "/health")
    assert (prefect.address, prefect.health) == ("http://127.0.0.1:4201", "/api/health")
    assert worker.address == "http://127.0.0.1:8081"
    assert mlflow.program
    assert f"sqlite:///{home}/mlflow/mlflow.db" in mlflow.program.command
    assert worker.program
    assert list(worker.program.command[-5:]) == ["worker", "--pool", "pool", "--limit", "2"]
    assert worker.program.log is None, "what it says is for the terminal"
    assert worker.program.stop_seconds > 45, "its runs have 45 to end"


def test_each_finds_the_others_and_the_users_settings_win() -> None:
    started = services(5001, 4201, 8081, "pool", 1)
    own = {"PATH": "/usr/bin", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true", "PREFECT_UI_STATIC_DIRECTORY": "/ui"}
    found = environment(started, own)
    assert found["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert found["PREFECT_API_URL"] == found["PREFECT_UI_API_URL"] == "http://127.0.0.1:4201/api"
    assert found["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem"), "slots outlive a restart"
    assert (found["PREFECT_WORKER_WEBSERVER_HOST"], found["PREFECT_WORKER_WEBSERVER_PORT"]) == ("127.0.0.1", "8081")
    assert own.items() <= found.items()


def test_prefects_server_asks_for_a_login_that_this_user_alone_can_read(home: Path) -> None:
    started = services(5001, 4201, 8081, "pool", 1)
    found = [environment(started, {}) for _ in range(2)]
    login = found[0]["PREFECT_SERVER_API_AUTH_STRING"]
    assert re.fullmatch(r"preflow:[\w-]{32}", login)
    assert found[0]["PREFECT_API_AUTH_STRING"] == login
    assert found[1] == found[0], "the same at the next start"
    file = home / "prefect" / "login"
    assert file.read_text() == f"{login}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    chosen = environment(started, {"PREFECT_SERVER_API_AUTH_STRING": "ada:chosen"})
    assert chosen["PREFECT_SERVER_API_AUTH_STRING"] == chosen["PREFECT_API_AUTH_STRING"] == "ada:chosen"


def test_servers_that_are_named_elsewhere_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:s3cret@mlflow.example/")
    with temporary_settings({PREFECT_API_URL: "http://prefect.example:4200/api"}):
        mlflow, prefect, worker = services(5000, 4200, 8080, "pool", 1)
    assert (mlflow.program, mlflow.address) == (None, "https://mlflow.example")
    assert (prefect.program, prefect.address) == (None, "http://prefect.example:4200")
    assert worker.program
    own = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "PREFECT_API_URL": "http://prefect.example:4200/api"}
    found = environment([mlflow, prefect, worker], own)
    assert own.items() <= found.items()
    assert "PREFECT_UI_API_URL" not in found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_addresses_that_name_what_is_to_be_started_are_no_other_servers(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:5000")
    with temporary_settings({PREFECT_API_URL: f"http://{host}:4200/api"}):
        started = services(5000, 4200, 8080, "pool", 1)
    assert all(service.program for service in started)


def test_a_store_that_is_no_server_is_the_one_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////tmp/mine.db")
    mlflow, *_ = services(5000, 4200, 8080, "pool", 1)
    assert mlflow.program
    assert "sqlite:////tmp/mine.db" in mlflow.program.command


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_port_that_is_taken_names_its_option_and_nothing_starts(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports = [free_port(), free_port(), free_port()]
        ports[taken] = listener.getsockname()[1]
        mlflow, prefect, worker = ports
        option = ("--mlflow-port", "--prefect-port", "--worker-port")[taken]
        with (
            pytest.raises(UiError, match=f"{option} {ports[taken] + 1}"),
            serving(services(mlflow, prefect, worker, "pool", 1)),
        ):
            pass


def test_two_that_would_have_one_port_are_refused() -> None:
    with pytest.raises(UiError, match="two ports are the same"), serving(services(5000, 5000, 8080, "pool", 1)):
        pass


def test_a_home_that_is_served_already_is_refused(home: Path) -> None:
    home.mkdir(exist_ok=True)
    with (
        FileLock(home / "serve.lock", is_singleton=False),
        pytest.raises(UiError, match="is served already"),
        serving(services(5000, 4200, 8080, "pool", 1)),
    ):
        pass
