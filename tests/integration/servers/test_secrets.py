"""Secrets that a run is given are in nothing that it leaves, whether its servers answer or not."""

from pathlib import Path

import pytest

from tests.fixtures.mlflow_server import Server, module_server, server
from tests.integration.conftest import Pipeline

__all__ = ["module_server", "server"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.server]
LOGIN = ("alice", "Pl4nted-mlflow")
PLANTED = {
    "HF_TOKEN": "hf_Pl4ntedHub",
    "AWS_SECRET_ACCESS_KEY": "Pl4nted/aws+key",
    "AWS_SESSION_TOKEN": "Pl4nted-session",
    "JUDGE_API_KEY": "sk-Pl4nted-judge",
    "OPENAI_API_KEY": "sk-Pl4nted-openai",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:Pl4nted-prefect",
    "PREFECT_API_AUTH_STRING": "admin:Pl4nted-prefect",
    "GIT_PASSWORD": "Pl4nted-git",
    "ALL_PROXY_FOR_OTHERS": "http://proxy:Pl4nted-proxy@proxy.example:3128",
}
SECRETS = [*(value.rpartition(":")[2].rpartition("@")[0] or value for value in PLANTED.values()), LOGIN[1]]


def leaks(pipeline: Pipeline, output: str) -> dict[str, list[str]]:
    """Where each secret is found; bytes of every file, so databases and their journals too."""
    found: dict[str, list[str]] = {}
    files = [path for path in pipeline.folder.rglob("*") if path.is_file()]
    for name, text in [("output", output.encode()), *((str(path), path.read_bytes()) for path in files)]:
        for secret in ("Pl4nted", *SECRETS):
            if secret.encode() in text:
                found.setdefault(secret, []).append(name)
    return found


def test_the_search_finds_what_is_there(pipeline: Pipeline) -> None:
    (pipeline.home / "prefect.db-wal").write_bytes(b"..hf_Pl4ntedHub..")
    assert set(leaks(pipeline, "")) == {"Pl4nted", "hf_Pl4ntedHub"}


def test_a_run_with_its_server_behind_a_login_leaves_no_secret(
    pipeline: Pipeline, recipe: Path, server: Server
) -> None:
    server.login = LOGIN
    address = server.address.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@")
    done = pipeline.start(str(recipe), **PLANTED, MLFLOW_TRACKING_URI=address, PREFECT_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0, done.stderr
    assert leaks(pipeline, done.stdout + done.stderr) == {}
    assert not [path for path in server.folder.rglob("*") if path.is_file() and b"Pl4nted" in path.read_bytes()]


def test_a_run_whose_server_is_away_ends_in_one_sentence_without_secrets(pipeline: Pipeline, recipe: Path) -> None:
    address = f"http://{LOGIN[0]}:{LOGIN[1]}@127.0.0.1:9"
    done = pipeline.start(str(recipe), **PLANTED, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 2
    assert "MLflow at http://127.0.0.1:9 does not answer" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert pipeline.calls == [], "nothing was computed"
    assert leaks(pipeline, done.stdout + done.stderr) == {}
