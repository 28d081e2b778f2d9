"""A machine that refuses what a run needs: one clear error in seconds, which names the place and the remedy."""

import ctypes
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flows.running.machine_errors import clear_machine_errors
from preflow.errors import MachineError
from tests.integration.conftest import ROOT, clean_environment
from tests.integration.servers.commands import PREFLOW

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def _as_a_user_without_rights() -> None:
    """Root passes over permissions by a capability, which the command that is started then lacks."""
    if os.geteuid() == 0:
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def _with_64_handles() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _with_256_handles() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def run(recipe: Path, home: Path, prepare: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PREFLOW, "run", str(recipe)],
        env={**clean_environment(), "PREFLOW_HOME": str(home), "COLUMNS": "400"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        preexec_fn=prepare,
    )


def one_error(done: "subprocess.CompletedProcess[str]") -> str:
    """The one error that was printed, without a traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("MachineError")]
    return line


@pytest.mark.slow
@pytest.mark.parametrize("where", ["home", "prefect"])
def test_a_home_that_cannot_be_written(where: str, tmp_path: Path, tiny_recipe_file: Callable[..., Path]) -> None:
    """The home of another user, or a part of it that another user has made."""
    home = tmp_path / "own"
    refused = home if where == "home" else home / "prefect"
    refused.mkdir(parents=True)
    refused.chmod(0o555)
    line = one_error(run(tiny_recipe_file(), home, _as_a_user_without_rights))
    assert f"{refused}" in line
    assert "cannot be written: Permission denied. Make it writable for this user, or set PREFLOW_HOME" in line


def _write_text(path: Path) -> None:
    path.write_text("x" * 10**6)


def _write_state(path: Path) -> None:
    torch.save({"exp_avg": torch.zeros(1000, 1000)}, path)


def _write_rows(path: Path) -> None:
    pq.write_table(pa.table({"value": list(range(10**5))}), path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("write", [_write_text, _write_state, _write_rows], ids=lambda w: w.__name__)
def test_a_full_disk_is_recognized_whichever_library_writes(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report, a checkpoint of the optimizer, rows: each library has errors of its own."""
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    (tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=f"the disk of {tmp_path} is full. Free space there"), clear_machine_errors():
        write(tmp_path / "file")


@pytest.mark.nightly
def test_256_file_handles_are_enough(tmp_path: Path, tiny_recipe_file: Callable[..., Path]) -> None:
    done = run(tiny_recipe_file(), tmp_path / "own", _with_256_handles)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_too_few_file_handles(tmp_path: Path, tiny_recipe_file: Callable[..., Path]) -> None:
    """It opens more later, and would wait for ever for a thread that could not."""
    line = one_error(run(tiny_recipe_file(), tmp_path / "own", _with_64_handles))
    assert "64 open files are allowed, expected 256 at least. Raise the limit: ulimit -n 4096" in line
