"""Whether what is installed agrees with what Preflow asks for, and whether it starts."""

import subprocess
import sys
from importlib import metadata

from packaging.requirements import Requirement

from flows.health.check import Check, failed, ok

_REINSTALL = "pip install -c constraints.txt preflow (make env in a checkout)"
#: Prefect's server and MLflow's, as far as they go without an address; together they import all that must agree.
_SERVERS = {
    "Prefect's server": "from prefect.server.api.server import create_app; create_app()",
    "MLflow's server": "import mlflow.server.fastapi_app",
}
_START_SECONDS = 60


def check_versions() -> Check:
    """Every distribution that Preflow requires is installed in a version that it allows."""
    name = "versions"
    wrong, count = [], 0
    for line in metadata.requires("preflow") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, expected {requirement.specifier}")
    if wrong:
        return failed(name, "; ".join(wrong), _REINSTALL)
    return ok(name, f"{count} required distributions agree")


def start_servers() -> dict[str, "subprocess.Popen[str]"]:
    """Start importing both servers, each in a process of its own; ``check_servers`` says what became of them."""
    return {
        name: subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for name, code in _SERVERS.items()
    }


def check_servers(started: dict[str, "subprocess.Popen[str]"]) -> list[Check]:
    """Whether each server can be started with what is installed.

    Args:
        started: Of ``start_servers``.
    """
    return [_check_server(name, process) for name, process in started.items()]


def _check_server(name: str, process: "subprocess.Popen[str]") -> Check:
    try:
        _, said = process.communicate(timeout=_START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return failed(name, f"did not load within {_START_SECONDS} s", "look at this machine's load, then try again")
    if process.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "no message")
        return failed(name, f"does not load: {last.strip()[:200]}", _REINSTALL)
    return ok(name, "loads")
