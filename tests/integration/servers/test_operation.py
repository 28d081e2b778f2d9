"""A real Prefect server: notifications arrive, a decision is asked and answered, slots are taken in turns."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.fixtures.ports import free_port
from tests.fixtures.receivers import webhook
from tests.integration.conftest import ROOT, clean_environment
from tests.integration.servers.commands import PREFECT, PREFLOW, post, preflow, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.server]
PATIENCE = 120


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home_with_tables: Path) -> Iterator[dict[str, str]]:
    """One server for all tests of this module, with the settings that ``preflow serve`` gives its own."""
    import shutil

    from flows.operation.server_processes import prefect_defaults

    folder = tmp_path_factory.mktemp("operation")
    shutil.copytree(home_with_tables, folder / "home")
    port = free_port()
    environment = {
        **clean_environment(),
        **prefect_defaults(port),
        "PREFLOW_HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "home" / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "300",
    }
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, environment, folder / "server.log"):
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield environment


def refused(environment: dict[str, str], *arguments: str, **given: Any) -> str:
    """What a command says that is refused."""
    done = subprocess.run(
        [*PREFLOW, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False, **given
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def automations(environment: dict[str, str]) -> dict[str, str]:
    return {each["name"]: each["id"] for each in post(environment, "automations/filter", {})}


def make_run(environment: dict[str, str], flow: str) -> str:
    """A run of a flow, of which the server alone knows."""
    made = post(environment, "flows/", {"name": flow})
    return str(post(environment, "flow_runs/", {"flow_id": made["id"], "name": f"{flow}-{uuid4()}"})["id"])


def set_state(environment: dict[str, str], run: str, kind: str, **state: Any) -> None:
    body = {"state": {"type": kind, **state}, "force": True}
    assert post(environment, f"flow_runs/{run}/set_state", body)["status"] == "ACCEPT"


def test_notifications_of_runs_go_by_the_block_that_is_named(server: dict[str, str]) -> None:
    with webhook() as (url, arrived):
        preflow({**server, "PREFLOW_NOTIFY_ADDRESS": url}, "operate", "address", "team")
        assert arrived == [], "nothing is sent before it is asked for"
        preflow(server, "operate", "setup", "--notify", "custom-webhook/team")
        assert [message["subject"] for message in arrived] == ["Preflow: test message"]
        first = automations(server)
        assert len(first) == 5
        preflow(server, "operate", "setup", "--no-test")
        assert automations(server) == first, "again without harm"
        assert len(arrived) == 1
        shown = preflow(server, "operate", "show")
        assert shown.count("on       preflow: ") == 5
        assert "custom-webhook/team" in shown
        assert url not in shown
        failed, other = make_run(server, "two-stage"), make_run(server, "another-project")
        set_state(server, other, "CRASHED")
        set_state(server, failed, "CRASHED", message="out of memory")
        late = make_run(server, "two-stage")
        set_state(server, late, "SCHEDULED", name="Late")
        finished = make_run(server, "two-stage")
        set_state(server, finished, "COMPLETED")
        until(lambda: len(arrived) == 4)
        told = {message["subject"].split(" ", 2)[2]: message["text"] for message in arrived[1:]}
        assert sorted(told) == ["ended as Crashed", "is finished", "is late"]
        assert told["ended as Crashed"].startswith("out of memory\n")
        assert all("another-project" not in message["subject"] for message in arrived)


def test_a_wrong_address_is_an_error_and_installs_nothing(server: dict[str, str]) -> None:
    before = automations(server)
    preflow({**server, "PREFLOW_NOTIFY_ADDRESS": "http://127.0.0.1:9/mistyped"}, "operate", "address", "wrong")
    said = refused(server, "operate", "setup", "--notify", "custom-webhook/wrong")
    assert said.startswith("NotificationError: the message by the block custom-webhook/wrong was not taken")
    assert "no such block" in refused(server, "operate", "setup", "--notify", "custom-webhook/absent")
    assert "none that apprise can read" in refused(server, "operate", "address", "odd", input="nonsense\n")
    assert automations(server) == before


def python(environment: dict[str, str], code: str) -> None:
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)


def test_a_run_that_sends_no_event_is_closed(server: dict[str, str], request: pytest.FixtureRequest) -> None:
    """With seconds in place of minutes; another run, which sends heartbeats, lives. Later tests have the minutes."""
    code = """
from uuid import UUID
from prefect.client.orchestration import get_client
from flows.operation import automations
automations.ZOMBIE_SECONDS = 12
with get_client(sync_client=True) as client:
    automations.install(client, [UUID(int=1)])
"""
    request.addfinalizer(lambda: python(server, code.replace("ZOMBIE_SECONDS = 12", "ZOMBIE_SECONDS = 180")))
    python(server, code)
    silent, living, suspended = (make_run(server, "two-stage") for _ in range(3))
    for run in (silent, living, suspended):
        set_state(server, run, "RUNNING")
        heartbeat(server, run)
    set_state(server, suspended, "PAUSED", name="Suspended")

    def closed() -> bool:
        heartbeat(server, living)
        return bool(state(server, silent)["type"] == "CRASHED")

    until(closed)
    assert "This run sent no event" in state(server, silent)["message"]
    assert state(server, living)["type"] == "RUNNING"
    assert state(server, suspended)["name"] == "Suspended"


def heartbeat(environment: dict[str, str], run: str) -> None:
    """What Prefect's engine sends of a run."""
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [
            {
                "prefect.resource.id": f"prefect.flow.{uuid4()}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": "two-stage",
            }
        ],
    }
    httpx.post(f"{environment['PREFECT_API_URL']}/events", json=[event], timeout=30).raise_for_status()


def state(environment: dict[str, str], run: str) -> dict[str, Any]:
    answer = httpx.get(f"{environment['PREFECT_API_URL']}/flow_runs/{run}", timeout=30)
    return dict(answer.raise_for_status().json()["state"])


BEFORE = """
import os, sys
from prefect.client.orchestration import get_client
from flows.operation.decisions import decide
from preflow.errors import ConfigError
from tests.integration.servers.asking_flow import asks
with get_client(sync_client=True) as client:
    made = client.create_deployment(
        client.create_flow(asks), "asks", path=".", entrypoint="tests.integration.servers.asking_flow.asks",
        # As preflow deploy: without a step Prefect copies the whole folder, environment and all, for each start.
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": os.getcwd()}}],
    )
    run = str(client.create_flow_run_from_deployment(made, parameters={"book": sys.argv[1]}).id)
try:
    decide(run, True, "Ada", "early")
except ConfigError as error:
    print(error.message)
print(run)
"""
WHILE = """
import sys
from uuid import uuid4
from prefect.client.orchestration import get_client
from flows.operation.decisions import decide, question_of, waiting
from preflow.errors import ConfigError
run = sys.argv[1]
with get_client(sync_client=True) as client:
    print(*(each.id for each in waiting(client)))
print(question_of(run))
answers = [(run, "Ada", " "), (str(uuid4()), "Ada", "x"), ("no-such-name", "Ada", "x")]
answers += [(run, "Ada", "y"), (run, "Bob", "z")]
for asked, by, reason in answers:
    try:
        print("decided", decide(asked, asked == run and reason == "y", by, reason).id)
    except ConfigError as error:
        print(error.message)
"""


def printed(environment: dict[str, str], code: str, argument: str) -> list[str]:
    command = [sys.executable, "-c", code, argument]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_a_run_asks_and_goes_on_with_the_answer(server: dict[str, str], tmp_path: Path) -> None:
    book = tmp_path / "book"
    early, run = printed(server, BEFORE, str(book))
    assert early.endswith("asks nothing: its state is Scheduled")
    execute(server, run)
    assert state(server, run)["name"] == "Suspended"
    waiting, question, incomplete, absent, unnamed, decided, second = printed(server, WHILE, run)
    assert waiting == run
    assert question == "The gain is 0.068. May it go live?"
    assert "--reason TEXT" in incomplete
    assert "has no run" in absent
    assert "has no run of the name no-such-name" in unnamed
    assert decided == f"decided {run}"
    assert "was answered already: approved by Ada (y)" in second
    execute(server, run)
    assert state(server, run)["type"] == "COMPLETED"
    assert book.read_text().splitlines() == ["measured", "Decision(approved=True, by='Ada', reason='y')"]


def execute(environment: dict[str, str], run: str) -> None:
    """What a worker does with a run."""
    subprocess.run([*PREFECT, "flow-run", "execute", run], env=environment, cwd=ROOT, check=True, capture_output=True)


HOLDER = """
import sys, time
from uuid import uuid4
from flows.operation.slots import hold_slot
def say(message, **_):
    print(message, flush=True)
with hold_slot("gpu-0", str(uuid4()), say):
    time.sleep(float(sys.argv[1]))
"""


def holder(environment: dict[str, str], log: Path, seconds: float) -> Any:
    return running([sys.executable, "-c", HOLDER, str(seconds)], environment, log)


@pytest.mark.nightly  # unit tests hold the slots' own promises each time
def test_two_runs_hold_a_slot_one_after_the_other(server: dict[str, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert "2 at once" in preflow(server, "operate", "slot", "gpu-0", "--limit", "2")
    assert "1 at once" in preflow(server, "operate", "slot", "gpu-0")
    with holder(server, first, 60) as holding:
        until(lambda: "is this run's" in first.read_text())
        assert "slot     gpu-0: 1 of 1 held" in preflow(server, "operate", "show")
        with holder(server, second, 0) as waiting:
            until(lambda: "waiting for the slot gpu-0" in second.read_text())
            os.kill(holding.pid, signal.SIGINT)
            assert waiting.wait(60) == 0
    assert "the slot gpu-0 is this run's" in second.read_text()
    assert "slot     gpu-0: 0 of 1 held" in preflow(server, "operate", "show")


@pytest.mark.nightly
def test_the_slot_of_a_killed_run_is_free_when_its_lease_ends(server: dict[str, str], tmp_path: Path) -> None:
    """A lease of a minute: 65 seconds, with what the server and the next run take to look."""
    first, second = tmp_path / "first", tmp_path / "second"
    preflow(server, "operate", "slot", "gpu-0")
    with holder(server, first, 600) as holding:
        until(lambda: "is this run's" in first.read_text())
        with holder(server, second, 0) as waiting:
            until(lambda: "waiting for the slot" in second.read_text())
            holding.kill()
            assert waiting.wait(75) == 0, "and ten for a busy machine"
