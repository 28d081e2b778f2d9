"""Secrets that a run is given are in nothing that it leaves or shows, whether its servers answer or not."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from flows.operation.server_processes import mlflow_command, prefect_command
from tests.fixtures.mlflow_server import Server, module_server, server
from tests.fixtures.ports import free_port
from tests.fixtures.tls import self_signed, tls_before
from tests.integration.conftest import Pipeline, clean_environment
from tests.integration.servers.commands import running, wait_for

__all__ = ["module_server", "server"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.server]
LOGIN = ("alice", "Pl4nted-mlflow")
PLANTED = {
    "HF_TOKEN": "hf_Pl4ntedHub",
    "AWS_ACCESS_KEY_ID": "Pl4ntedAwsId",
    "AWS_SECRET_ACCESS_KEY": "Pl4nted/aws+key",
    "AWS_SESSION_TOKEN": "Pl4nted-session",
    "JUDGE_API_KEY": "sk-Pl4nted-judge",
    "OPENAI_API_KEY": "sk-Pl4nted-openai",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:Pl4nted-prefect",
    "PREFECT_API_AUTH_STRING": "admin:Pl4nted-prefect",
    "GIT_PASSWORD": "Pl4nted-git",
    "HTTPS_PROXY": "http://proxy:Pl4nted-proxy@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
#: The address of a database that a client never opens: beside an external server, or where it is away.
DATABASE = {"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect:Pl4nted-pg@127.0.0.1:9/prefect"}
MARK = "Pl4nted"


def leaks(folder: Path, output: str, given: tuple[str, ...] = ()) -> dict[str, bytes]:
    """What holds a secret, with what stands around it; bytes of every file, so databases and their journals too.

    Args:
        folder: Where every process of the test keeps its files.
        output: What was printed.
        given: Names of files in which secrets were given, and belong.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in given]
    read = {"output": output.encode(), **{str(path): path.read_bytes() for path in files}}
    places = {name: text.find(MARK.encode()) for name, text in read.items()}
    return {name: read[name][max(0, at - 80) : at + 80] for name, at in places.items() if at >= 0}


@contextmanager
def arguments_watched() -> Iterator[set[str]]:
    """The command lines with a secret that processes of this test have while the block runs."""
    found: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    line = " ".join(process.cmdline())
                except psutil.Error:  # it has just ended
                    continue
                if MARK in line:
                    found.add(line)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


def test_the_search_finds_what_is_there(pipeline: Pipeline) -> None:
    (pipeline.home / "prefect.db-wal").write_bytes(b"..hf_Pl4ntedHub..")
    assert [Path(name).name for name in leaks(pipeline.folder, "")] == ["prefect.db-wal"]
    assert list(leaks(pipeline.home / "mlflow", "login Pl4nted-mlflow")) == ["output"]


def test_the_watch_finds_a_secret_among_arguments() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(30)", "--password", "Pl4nted-mlflow"]
    with arguments_watched() as found, running(command, dict(os.environ), Path(os.devnull)):
        deadline = time.monotonic() + 60
        while not found:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.nightly  # each time, both servers are behind logins
def test_a_run_with_its_server_behind_a_login_leaves_no_secret(
    pipeline: Pipeline, recipe: Path, server: Server
) -> None:
    server.login = LOGIN
    address = server.address.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@")
    done = pipeline.start(str(recipe), **PLANTED, MLFLOW_TRACKING_URI=address, PREFECT_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0, done.stderr
    assert leaks(pipeline.folder, done.stdout + done.stderr) == {}
    assert leaks(server.folder, "") == {}


@pytest.fixture
def guarded(pipeline: Pipeline) -> Iterator[dict[str, str]]:
    """MLflow's own server with ``basic-auth`` and Prefect's with its auth string, both over TLS, as documented.

    The environment in which a run uses them.
    """
    folder = pipeline.folder
    auth = folder / "auth.ini"
    lines = [
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = sqlite:///{folder}/basic_auth.db",
        f"admin_username = {LOGIN[0]}",
        f"admin_password = {LOGIN[1]}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    ]
    auth.write_text("\n".join(lines))
    certificate, key = self_signed(folder)
    mlflow, prefect = free_port(), free_port()
    own = {**clean_environment(), **PLANTED, "PREFLOW_HOME": str(pipeline.home)}
    own["PREFECT_HOME"] = str(pipeline.home / "prefect")
    guard = {"MLFLOW_AUTH_CONFIG_PATH": str(auth), "MLFLOW_FLASK_SERVER_SECRET_KEY": "Pl4nted-flask"}
    store = f"sqlite:///{pipeline.home}/mlflow/mlflow.db"
    with ExitStack() as started:
        jobless = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [*mlflow_command(mlflow, store), "--app-name", "basic-auth"]
        started.enter_context(running(command, {**own, **guard, **jobless}, folder / "mlflow.log"))
        started.enter_context(running(prefect_command(prefect), own, folder / "prefect.log"))
        wait_for(f"http://127.0.0.1:{mlflow}/health")
        wait_for(f"http://127.0.0.1:{prefect}/api/health")
        tracked = started.enter_context(tls_before(mlflow, certificate, key))
        orchestrated = started.enter_context(tls_before(prefect, certificate, key))
        yield {
            "MLFLOW_TRACKING_URI": tracked.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@"),
            "PREFECT_API_URL": f"{orchestrated}/api",
            "REQUESTS_CA_BUNDLE": str(certificate),
            "PREFECT_API_SSL_CERT_FILE": str(certificate),
        }


def test_a_run_with_both_servers_behind_logins_and_tls_leaves_and_shows_no_secret(
    pipeline: Pipeline, recipe: Path, guarded: dict[str, str]
) -> None:
    with arguments_watched() as arguments:
        done = pipeline.start(str(recipe), **PLANTED, **DATABASE, **guarded, PREFECT_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0, done.stderr
    assert {run.info.status for run in pipeline.runs()} == {"FINISHED"}
    assert arguments == set()
    assert leaks(pipeline.folder, done.stdout + done.stderr, given=("auth.ini",)) == {}
    for missing, said in (("PREFECT_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"), ("MLFLOW_TRACKING_URI", "401")):
        given = {**PLANTED, **guarded, missing: ""}
        if missing == "MLFLOW_TRACKING_URI":
            given[missing] = guarded[missing].replace(f"{LOGIN[0]}:{LOGIN[1]}@", "")
        refused = pipeline.start(str(recipe), **given)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr[-3000:]
        assert "Traceback" not in refused.stderr
        assert leaks(pipeline.folder, refused.stdout + refused.stderr, given=("auth.ini",)) == {}


def test_a_run_whose_server_is_away_ends_in_one_sentence_without_secrets(pipeline: Pipeline, recipe: Path) -> None:
    address = f"http://{LOGIN[0]}:{LOGIN[1]}@127.0.0.1:9"
    done = pipeline.start(str(recipe), **PLANTED, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 2
    assert "MLflow at http://127.0.0.1:9 does not answer" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert pipeline.calls == [], "nothing was computed"
    assert leaks(pipeline.folder, done.stdout + done.stderr) == {}


@pytest.mark.nightly  # each time, a server is away from the start
def test_a_run_whose_server_goes_away_ends_with_its_results_and_without_secrets(
    pipeline: Pipeline, recipe: Path, server: Server
) -> None:
    """What it could not deliver waits on disk, without the login by which it will be delivered."""
    server.login = LOGIN
    address = server.address.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@")

    def go_away() -> None:
        while "validate" not in pipeline.calls:
            time.sleep(0.05)
        server.stop()

    going = threading.Thread(target=go_away, daemon=True)
    going.start()
    done = pipeline.start(str(recipe), **PLANTED, MLFLOW_TRACKING_URI=address, PREFECT_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0, done.stderr
    assert pipeline.calls[-1] == "evaluate"
    assert leaks(pipeline.folder, done.stdout + done.stderr) == {}


@pytest.mark.nightly  # each time, MLflow is away
@pytest.mark.parametrize(
    ("away", "said"),
    [({"PREFECT_API_URL": "http://admin:Pl4nted-login@127.0.0.1:9/api"}, "127.0.0.1:9"), (DATABASE, "server")],
    ids=["Prefect's server", "the database of Prefect's own server"],
)
def test_an_error_about_prefect_shows_no_secret(
    pipeline: Pipeline, recipe: Path, away: dict[str, str], said: str
) -> None:
    done = pipeline.start(str(recipe), **PLANTED, **away)
    assert done.returncode != 0
    assert said in done.stderr
    assert leaks(pipeline.folder, done.stdout + done.stderr) == {}
