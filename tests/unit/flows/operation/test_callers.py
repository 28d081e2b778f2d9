"""Who may call the servers: their own pages, and programs of this machine; no page of the web."""

from flows.operation.server_processes import mlflow_command, prefect_defaults
from flows.running.embedded_server import _SETTINGS
from preflow.environment import DEFAULTS

OWN = "http://127.0.0.1:4321,http://localhost:4321"


def test_prefects_server_lets_its_own_page_call_it_and_asks_for_a_token() -> None:
    assert prefect_defaults(4321)["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == OWN
    assert "*" not in _SETTINGS["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert DEFAULTS["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"


def test_mlflows_server_answers_to_names_of_this_machine_and_to_its_own_page() -> None:
    command = mlflow_command(4321, "sqlite:///x.db")
    assert command[command.index("--allowed-hosts") + 1] == "localhost:*,127.0.0.1:*"
    assert command[command.index("--cors-allowed-origins") + 1] == OWN
