"""All state is kept under one folder, unless the user names another."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preflow import environment
from preflow.errors import MachineError

PRINT = """
import json
from preflow.environment import activate
activate()
import os, huggingface_hub.constants, datasets.config
print(json.dumps({
    "hub": str(huggingface_hub.constants.HF_HUB_CACHE), "datasets": str(datasets.config.HF_DATASETS_CACHE),
    "prefect": os.environ["PREFECT_HOME"],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"HF_HOME": "/elsewhere"}, {"HF_HUB_CACHE": "/elsewhere/hub"}])
def test_caches_lie_under_the_home_folder_unless_named(tmp_path: Path, own: dict[str, str]) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_H", "HF_D", "PREF"))}
    environment = {**clean, "PREFLOW_HOME": str(tmp_path), **own}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    got = json.loads(done.stdout)
    assert got["prefect"] == str(tmp_path / "prefect")
    assert got["hub"] == ("/elsewhere/hub" if own else str(tmp_path / "hub"))
    assert got["datasets"] == ("/elsewhere/datasets" if "HF_HOME" in own else str(tmp_path / "datasets"))


def test_what_bitsandbytes_says_of_4_bit_is_for_those_who_ask_for_it(caplog: pytest.LogCaptureFixture) -> None:
    kernels = logging.getLogger("bitsandbytes.backends.cpu.ops")
    environment.activate()
    kernels.warning("Failed to load CPU gemm_4bit_forward")
    assert not caplog.records
    environment.quiet_quantization(asked=True)
    kernels.warning("Failed to load CPU gemm_4bit_forward")
    assert [record.message for record in caplog.records] == ["Failed to load CPU gemm_4bit_forward"]
    environment.activate()


@pytest.mark.parametrize(
    ("address", "named", "known"),
    [
        ("http://127.0.0.1:4200/api", False, True),
        ("http://localhost:4200/api", False, True),
        ("http://prefect.example:4200/api", False, False),
        ("http://prefect:4200/api", True, True),
    ],
)
def test_the_login_of_this_machines_prefect_is_read_from_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, named: bool, known: bool
) -> None:
    """No other machine's server receives it, unless the file is named."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "restored after the test")
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", address)
    environment.activate()
    assert "PREFECT_API_AUTH_STRING" not in os.environ, "there is no file"
    file = tmp_path / "elsewhere" if named else tmp_path / "prefect" / "login"
    file.parent.mkdir(exist_ok=True)
    file.write_text("preflow:p4ss\n")
    if named:
        monkeypatch.setenv("PREFLOW_PREFECT_LOGIN", str(file))
    environment.activate()
    assert os.environ.get("PREFECT_API_AUTH_STRING") == ("preflow:p4ss" if known else None)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ada:own")
    environment.activate()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "ada:own"


def test_the_login_of_mlflows_address_goes_where_mlflow_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://team:p%40ss@mlflow.example:5000/base")
    environment.activate()
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example:5000/base"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "team"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss", "a login in the address is the one that requests would use"


@pytest.mark.parametrize("address", ["sqlite:////home/mlflow.db", "https://mlflow.example:5000", "https://token@host"])
def test_an_address_without_a_whole_login_stays(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    environment.activate()
    assert os.environ["MLFLOW_TRACKING_URI"] == address
    assert "MLFLOW_TRACKING_USERNAME" not in os.environ


@pytest.mark.slow
def test_a_server_started_in_the_checkout_keeps_the_slots_of_trainings_on_disk() -> None:
    """In memory, as Prefect has them, they are lost when the server starts again, and their runs are ended."""
    code = "from prefect.settings import get_current_settings as s; print(s().server.concurrency.lease_storage)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=clean, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "prefect.server.concurrency.lease_storage.filesystem"


def test_the_home_folder_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "deep" / "home"))
    environment.private_home()
    assert (tmp_path / "deep" / "home").stat().st_mode & 0o777 == 0o700
    (tmp_path / "deep" / "home").chmod(0o770)  # a group that shares one
    environment.private_home()
    assert (tmp_path / "deep" / "home").stat().st_mode & 0o777 == 0o770


def test_the_home_folder_of_another_user_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    environment.private_home()  # the user's own, which is only read-only: another error says that
    someone = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: someone)
    with pytest.raises(MachineError, match="is another user's: set PREFLOW_HOME"):
        environment.private_home()
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="cannot be made"):
        environment.private_home()
