"""The commands of ``infra/compose.yaml``, started as the file has them: they agree, and a deployment ends well."""

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.faults.services import Postgres, Service
from tests.fixtures.ports import free_port
from tests.integration.conftest import ROOT, clean_environment
from tests.integration.servers.commands import preflow

COMPOSE = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))
LOGIN = "preflow:a-login-of-this-test"

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("initdb") is None, reason="PostgreSQL is not installed"),
]


@dataclass
class Stack:
    """The services of the file on this machine: its names, ports and folders replaced."""

    folder: Path
    postgres: Postgres
    ports: dict[str, int]

    def service(self, name: str, health: str | None = None) -> Service:
        """One of them, with its own command and environment."""
        given = COMPOSE["services"][name]
        log = self.folder / f"{name}.log"
        return Service([self.here(word) for word in given["command"]], self.environment(name), log, health)

    def environment(self, name: str) -> dict[str, str]:
        """The environment of one of them."""
        own = {key: self.here(value) for key, value in COMPOSE["services"][name]["environment"].items()}
        folders = {"HOME": str(self.folder), "PREFECT_HOME": str(self.folder / name)}
        return {**clean_environment(), "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()), **folders, **own}

    def here(self, text: str) -> str:
        """A text of the file as it holds here."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        for name, port in {"postgres": 5432, "prefect": 4200, "mlflow": 5000}.items():
            own = self.postgres.port if name == "postgres" else self.ports[name]
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{own}").replace(f"127.0.0.1:{port}", f"127.0.0.1:{own}")
            text = text.replace(f"--port {port}", f"--port {own}")
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/data/", f"{self.folder}/")
        return text.replace("/run/secrets/", f"{self.folder}/secrets/")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, Postgres(tmp_path), {"prefect": free_port(), "mlflow": free_port()})
    for folder in ("secrets", "preflow/prefect", "prefect", "mlflow/artifacts"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    secrets = {"postgres_password": "a-password-of-this-test", "prefect_login": LOGIN, "hf_token": ""}
    for name, value in secrets.items():
        (tmp_path / "secrets" / name).write_text(value, encoding="utf-8")
    made.postgres.start()
    connection = ["psql", "-h", "127.0.0.1", "-p", str(made.postgres.port), "-U", "prefect"]
    subprocess.run([*connection, "-d", "postgres", "-c", "CREATE DATABASE prefect"], check=True, capture_output=True)
    for script in sorted((ROOT / "infra" / "postgres").glob("*.sql")):
        subprocess.run([*connection, "-d", "prefect", "-f", str(script)], check=True, capture_output=True)
    services: list[Service] = []
    try:
        for name, path in {"prefect": "/api/health", "mlflow": "/health"}.items():
            services.append(made.service(name, f"http://127.0.0.1:{made.ports[name]}{path}"))
            services[-1].launch()
        for service in services:
            service.wait_healthy()
        services.append(made.service("worker"))
        services[-1].start()
        yield made
    finally:
        for service in reversed(services):
            service.stop()
        made.postgres.service.stop(signal.SIGINT)
        made.postgres.remove()


def test_the_services_agree(stack: Stack, tiny_recipe_file: Callable[..., Path]) -> None:
    environment = stack.environment("worker")
    recipe = tiny_recipe_file()
    preflow(environment, "deploy", str(recipe))
    preflow(environment, "submit", str(recipe), "--watch")

    page = f"http://127.0.0.1:{stack.ports['prefect']}"
    assert httpx.get(f"{page}/api/health").status_code == 200
    assert httpx.get(f"{page}/api/admin/version").status_code == 401
    assert httpx.get(f"{page}/api/health", headers={"Host": "evil.example"}).status_code == 400
    names: Any = subprocess.run(
        ["psql", "-h", "127.0.0.1", "-p", str(stack.postgres.port), "-U", "prefect", "-d", "mlflow", "-tAc",
         "SELECT status FROM runs"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert names
    assert set(names) == {"FINISHED"}


def test_no_command_shows_a_secret() -> None:
    """Process arguments can be read by everyone on a machine: a shell takes secrets from their files itself."""
    for name, service in COMPOSE["services"].items():
        text = " ".join(service.get("command", []))
        assert "_PASSWORD}" not in text, name
        assert "--backend-store-uri" not in text, name
