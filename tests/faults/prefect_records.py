"""What Prefect's server says of runs, asked over HTTP as any client could."""

import time
from typing import Any

import httpx

_ATTEMPTS = 20
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]


class Prefect:
    """A Prefect server, by its address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._crashed: dict[str, int] = {}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """An answer; a busy database is asked again, as Prefect's own clients do."""
        for _ in range(_ATTEMPTS):
            answer = httpx.post(f"{self.address}/{path}", json=body, timeout=60)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(2)
        return answer.raise_for_status().json()

    def _get(self, path: str) -> Any:
        return httpx.get(f"{self.address}/{path}", timeout=30).raise_for_status().json()

    def deployment(self, name: str) -> str:
        """A deployment's id."""
        return str(self._get(f"deployments/name/{name}")["id"])

    def submit(self, deployment: str) -> str:
        """Ask for a run of a deployment; its id."""
        return str(self._post(f"deployments/{deployment}/create_flow_run", {})["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        """A run."""
        return dict(self._get(f"flow_runs/{run}"))

    def ended(self, run: str) -> dict[str, Any] | None:
        """A run that has ended; a crashed one only when no worker has taken it up again after many polls."""
        try:
            found = self.flow_run(run)
        except httpx.HTTPError:  # the server is away, or has just started
            return None
        kind = found["state"]["type"]
        if kind != "CRASHED":
            self._crashed.pop(run, None)
            return found if kind in _FINAL else None
        self._crashed[run] = self._crashed.get(run, 0) + 1
        return found if self._crashed[run] > 200 else None

    def unfinished(self) -> list[str]:
        """Flow runs and task runs that are called running, or about to be."""
        states = {"state": {"type": {"any_": _UNFINISHED}}}
        flows = self._post("flow_runs/filter", {"flow_runs": states})
        tasks = self._post("task_runs/filter", {"task_runs": states})
        return [f"{found['name']} ({found['state']['name']})" for found in [*flows, *tasks]]

    def slots(self) -> int:
        """Slots of any concurrency limit that are held."""
        limits = self._post("v2/concurrency_limits/filter", {})
        return sum(int(limit["active_slots"]) for limit in limits)
