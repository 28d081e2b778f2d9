"""Errors of disk, permissions and file handles become one error that names the place and the remedy."""

import errno
import os
import resource
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError

from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors, machine_error
from preflow.errors import ConfigError, MachineError


def test_a_full_disk_names_the_folder_and_another_home(tmp_path: Path) -> None:
    error = machine_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "checkpoint-2")))
    assert str(error).startswith(f"the disk of {tmp_path} is full. Free space there, or set PREFLOW_HOME")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        sqlite3.OperationalError("database or disk is full"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_libraries_that_name_no_folder_mean_the_home_folder(error: Exception, home: Path) -> None:
    assert str(machine_error(error)).startswith(f"the disk of {home.parent} is full")
    home.mkdir()
    assert str(machine_error(error)).startswith(f"the disk of {home} is full")


def test_the_error_that_led_to_another_counts(tmp_path: Path) -> None:
    error = RuntimeError("the optimizer's state could not be saved")
    error.__cause__ = OSError(errno.ENOSPC, "no space", str(tmp_path / "x"))
    with pytest.raises(MachineError, match="is full"), clear_machine_errors():
        raise error


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_home_that_cannot_be_written_is_named(number: int, home: Path) -> None:
    error = machine_error(OSError(number, os.strerror(number), str(home / "prefect")))
    assert str(error).startswith(f"{home}/prefect cannot be written: {os.strerror(number)}. Make it writable for")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    assert machine_error(PermissionError(errno.EACCES, "denied", str(tmp_path / "data.jsonl"))) is None
    assert machine_error(FileNotFoundError(errno.ENOENT, "none", str(tmp_path / "x"))) is None
    with pytest.raises(ZeroDivisionError), clear_machine_errors():
        _ = 1 / 0


def test_an_error_that_explains_itself_is_not_explained_again() -> None:
    error = ConfigError("beta")
    error.__cause__ = OSError(errno.ENOSPC, "no space")
    with pytest.raises(ConfigError, match="beta"), clear_machine_errors():
        raise error


def test_too_many_open_files_name_the_limit() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = str(machine_error(OSError(errno.EMFILE, "Too many open files")))
    assert text.startswith(f"{soft} open files are allowed, and more are needed. Raise it: ulimit -n 4096")


@pytest.mark.parametrize(
    ("limits", "after"),
    [((64, 8192), (4096, 8192)), ((256, 256), None), ((1024, 1024), None), ((256, resource.RLIM_INFINITY), None)],
)
def test_as_many_files_as_may_be_open_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], after: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: asked.append(given))
    ask_for_file_handles()
    wanted = after or ((4096, limits[1]) if limits[1] == resource.RLIM_INFINITY else None)
    assert asked == ([wanted] if wanted else [])


def test_a_limit_that_stays_too_low_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(MachineError, match=r"64 open files are allowed, expected 256 at least. .*ulimit -n 4096"):
        ask_for_file_handles()


def test_a_path_that_no_file_can_have_is_one_short_error() -> None:
    with pytest.raises(MachineError, match="is longer than a file's name may be") as raised, clear_machine_errors():
        Path("x" * 5000).stat()
    assert len(str(raised.value)) < 500
