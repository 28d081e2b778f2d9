"""Who may call the servers: their own pages, and programs of this machine; no page of the web."""

import pytest
from fastapi import FastAPI
from mlflow.server.security_utils import is_allowed_host_header
from starlette.testclient import TestClient

from flows.operation.prefect_app import create_app
from flows.operation.server_processes import mlflow_command, prefect_command, prefect_defaults
from flows.running.embedded_server import _SETTINGS
from preflow.environment import DEFAULTS
from preflow.errors import ConfigError

OWN = "http://127.0.0.1:4321,http://localhost:4321"


def test_prefects_server_lets_its_own_page_call_it_and_asks_for_a_token() -> None:
    assert prefect_defaults(4321)["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == OWN
    assert "*" not in _SETTINGS["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert DEFAULTS["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"


def test_mlflows_server_answers_to_names_of_this_machine_and_to_its_own_page() -> None:
    command = mlflow_command(4321, "sqlite:///x.db")
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1,127.0.0.1:*,localhost,localhost:*"
    assert command[command.index("--cors-allowed-origins") + 1] == OWN


def test_a_page_of_another_name_for_this_machine_is_answered_by_neither_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect.server.api.server.create_app", lambda **_: answering())
    assert statuses(create_app()) == {"127.0.0.1:4200": 200, "localhost:4200": 200, "evil.test:4200": 400}


def test_a_name_that_the_operator_gives_is_answered_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect.server.api.server.create_app", lambda **_: answering())
    monkeypatch.setenv("PREFLOW_ALLOWED_HOSTS", "flows.example, evil.test")
    assert statuses(create_app())["evil.test:4200"] == 200
    command = mlflow_command(4321, "sqlite:///x.db")
    hosts, origins = (
        command[command.index(f"--{name}") + 1].split(",") for name in ("allowed-hosts", "cors-allowed-origins")
    )
    for asked in ("flows.example", "flows.example:443", "evil.test", "127.0.0.1:4321", "localhost"):
        assert is_allowed_host_header(hosts, asked)
    assert not is_allowed_host_header(hosts, "other.test")
    assert {"https://flows.example", "http://127.0.0.1:4321"} <= set(origins)
    assert "https://other.test" not in origins


@pytest.mark.parametrize("given", ["https://a.example", "a.example:80", "*", "a*b", "a b"])
def test_what_is_no_name_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("PREFLOW_ALLOWED_HOSTS", given)
    with pytest.raises(ConfigError, match="PREFLOW_ALLOWED_HOSTS holds"):
        mlflow_command(4321, "sqlite:///x.db")


def test_what_prefect_lets_set_of_its_server_holds_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_KEEPALIVE_TIMEOUT", "75")
    command = prefect_command(4200)
    assert command[command.index("--timeout-keep-alive") + 1] == "75"


def answering() -> FastAPI:
    app = FastAPI()
    app.get("/")(lambda: "there")
    return app


def statuses(app: FastAPI) -> dict[str, int]:
    """The answer to each name in the request's Host."""
    names = ("127.0.0.1:4200", "localhost:4200", "evil.test:4200")
    return {name: TestClient(app, base_url=f"http://{name}").get("/").status_code for name in names}
