"""What becomes of a run whose process was killed."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from mlflow.exceptions import MlflowException
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelling, Completed, Crashed, Failed, Pending, Running

from flows.operation import recovery
from flows.operation.process_records import killed_runs
from preflow.errors import TrackingError
from tasks.tracking.lineage import process_tags

RUN = uuid4()


class Server:
    """A Prefect server with one run."""

    def __init__(self, state: State[Any], deployment: UUID | None, before: int = 0) -> None:
        self.run = FlowRun(id=RUN, name="demo", flow_id=uuid4(), deployment_id=deployment, state=state)
        self.states = [AwaitingRetry(message=recovery._HANDED_BACK)] * before + [state]
        self.set: list[State[Any]] = []
        self.missing = False

    def read_flow_run(self, run: UUID) -> FlowRun:
        if self.missing:
            raise ObjectNotFound(http_exc=httpx.HTTPError("404"))
        return self.run

    def read_flow_run_states(self, run: UUID) -> list[State[Any]]:
        return self.states

    def set_flow_run_state(self, run: UUID, state: State[Any], *, force: bool) -> None:
        assert force
        self.set.append(state)

    def read_task_runs(self, **filters: Any) -> list[Any]:
        return []


@pytest.fixture
def killed(home: Path) -> None:
    """The run's process is gone, and has left its record."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (home / "running").mkdir(parents=True)
    tags = {**process_tags(), "pid": str(ended.pid)}
    (home / "running" / f"{RUN}.json").write_text(str(tags).replace("'", '"'))
    assert killed_runs() == [str(RUN)]


@pytest.fixture
def killed_while_starting(killed: None, home: Path) -> None:
    """The same, and its file was written by the worker."""
    file = home / "running" / f"{RUN}.json"
    file.write_text(file.read_text().replace("{", '{"starting": "true", ', 1))


def recovered(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    @contextmanager
    def client(**options: Any) -> Iterator[Server]:
        yield server

    monkeypatch.setattr(recovery, "get_client", client)
    monkeypatch.setattr(recovery, "flow_run_processes", list)
    return list(recovery.recover())


@pytest.mark.parametrize("state", [Running(), Pending(), Crashed()], ids=lambda state: str(state.name))
def test_a_killed_run_of_a_deployment_goes_back_to_its_pool(
    killed: None, monkeypatch: pytest.MonkeyPatch, state: State[Any]
) -> None:
    server = Server(state, uuid4())
    assert recovered(server, monkeypatch) == ["demo: its process was killed; it goes back to the pool (1 of 3)"]
    assert [each.name for each in server.set] == ["AwaitingRetry"]
    assert killed_runs() == []


@pytest.mark.parametrize(
    "state",
    [
        Pending(),
        Crashed(message="Process exited with status code: -9. Process exited due to a SIGKILL signal."),
        Crashed(message="Flow run infrastructure exited with non-zero status code 137."),
    ],
    ids=["pending", "killed", "killed in a shell"],
)
def test_a_run_that_was_killed_while_it_started_goes_back(
    killed_while_starting: None, monkeypatch: pytest.MonkeyPatch, state: State[Any]
) -> None:
    server = Server(state, uuid4())
    recovered(server, monkeypatch)
    assert [each.name for each in server.set] == ["AwaitingRetry"]


def test_a_run_that_cannot_start_is_not_started_again(
    killed_while_starting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(Crashed(message="Process exited with status code: 1."), uuid4())
    assert recovered(server, monkeypatch) == []
    assert server.set == []
    assert killed_runs() == []


def test_a_run_that_is_killed_each_time_is_given_up(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Crashed(), uuid4(), before=3)
    assert recovered(server, monkeypatch) == ["demo: its process was killed 4 times; it is not started again"]
    (state,) = server.set
    assert (state.name, state.message) == (
        "Crashed",
        "Its process was killed 4 times: look for what kills it (memory?), then run it again; it goes on.",
    )


def test_a_run_without_a_deployment_is_closed(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Running(), None)
    assert recovered(server, monkeypatch) == []
    (state,) = server.set
    assert (state.name, state.message) == (
        "Crashed",
        "Its process was killed; run it again, it goes on from its last checkpoint.",
    )


def test_a_run_that_was_being_cancelled_is_cancelled(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Cancelling(), uuid4())
    recovered(server, monkeypatch)
    assert [each.name for each in server.set] == ["Cancelled"]


@pytest.mark.parametrize("state", [Completed(), Failed(), AwaitingRetry()], ids=lambda state: str(state.name))
def test_a_run_that_has_ended_or_waits_already_stays(
    killed: None, monkeypatch: pytest.MonkeyPatch, state: State[Any]
) -> None:
    server = Server(state, uuid4())
    assert recovered(server, monkeypatch) == []
    assert server.set == []
    assert killed_runs() == []


def test_a_run_that_the_server_does_not_know_is_forgotten(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Running(), uuid4())
    server.missing = True
    assert recovered(server, monkeypatch) == []
    assert killed_runs() == []


def test_what_started_a_run_reports_first(killed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its report that the run crashed would come after the run went on."""
    monkeypatch.setattr(recovery, "flow_run_processes", lambda: [(None, str(RUN))])
    monkeypatch.setattr(recovery, "get_client", lambda **options: contextmanager(lambda: iter([None]))())
    assert list(recovery.recover()) == []
    assert killed_runs() == [str(RUN)]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """MLflow's dead runs, and what is done with them."""
    seen: dict[str, Any] = {"dead": {}, "ended": [], "closed": set(), "away": False}

    def asked() -> None:
        if seen["away"]:
            raise TrackingError("away")

    monkeypatch.setattr(recovery, "require_mlflow", asked)
    monkeypatch.setattr(recovery, "mlflow_client", lambda: None)
    monkeypatch.setattr(recovery, "dead_runs", lambda store: seen["dead"])
    monkeypatch.setattr(recovery, "end_runs", lambda store, runs: seen["ended"].extend(runs))
    monkeypatch.setattr(recovery, "close_in_prefect", seen["closed"].update)
    return seen


def test_a_run_is_closed_that_two_checks_in_a_row_find_dead(home: Path, silent: dict[str, Any]) -> None:
    home.mkdir()
    silent["dead"] = {"first": "flow-1", "stage": None}
    seen = recovery.close_silent_runs(set())
    assert (seen, silent["ended"]) == ({"first", "stage"}, [])
    silent["dead"] = {"first": "flow-1", "second": "flow-2"}
    assert recovery.close_silent_runs(seen) == {"second"}
    assert (silent["ended"], silent["closed"]) == (["first"], {"flow-1"})


def test_after_an_outage_of_mlflow_two_checks_are_needed_again(home: Path, silent: dict[str, Any]) -> None:
    """Living runs have yet to send their heartbeat."""
    home.mkdir()
    silent["away"] = True
    assert recovery.close_silent_runs({"first"}) == set()


def test_an_mlflow_that_goes_away_meanwhile_ends_no_watch(
    home: Path, silent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()

    def away(store: None) -> dict[str, str]:
        raise MlflowException("connection refused")

    monkeypatch.setattr(recovery, "dead_runs", away)
    assert recovery.close_silent_runs({"first"}) == set()


def test_what_ended_runs_have_for_mlflow_is_delivered_before_they_are_looked_at(
    home: Path, silent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended while MLflow was away is called running there until its record is delivered."""
    waiting = home / "outbox" / "run-1"
    waiting.mkdir(parents=True)
    (waiting / "run.json").write_text("{}")
    silent["dead"] = {"run-1": "flow-1"}
    said: list[str] = []

    def delivered(say: Any) -> int:
        say("2 entries are for another MLflow", warning=True)
        say("7 entries of MLflow run run-1 delivered")
        silent["dead"] = {}
        return 0

    monkeypatch.setattr(recovery, "deliver_left_behind", delivered)
    monkeypatch.setattr(recovery, "recover", lambda: iter(()))
    ended = threading.Event()
    rounds = iter([False, True, False, True, True])
    monkeypatch.setattr(ended, "wait", lambda seconds: None)
    monkeypatch.setattr(ended, "is_set", lambda: next(rounds))
    recovery.watch(ended, said.append)
    assert silent["ended"] == []
    assert said == ["7 entries of MLflow run run-1 delivered"] * 2


def test_what_waits_stays_while_mlflow_is_away(home: Path, silent: dict[str, Any]) -> None:
    (home / "outbox" / "run-1").mkdir(parents=True)
    (home / "outbox" / "run-1" / "run.json").write_text("{}")
    silent["away"] = True
    recovery.deliver_what_waits(lambda line: None)
    assert (home / "outbox" / "run-1" / "run.json").exists()
