"""What a machine refuses a run (disk space, a folder, file handles): one error that names the place and the remedy."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preflow.environment import preflow_home
from preflow.errors import MachineError, PreflowError
from preflow.redaction import quoted

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_HANDLES = {errno.EMFILE, errno.ENFILE}
_LONG = {errno.ENAMETOOLONG}
#: How libraries that raise errors of their own (SQLite, safetensors, PyTorch) name the same.
_TEXTS = {
    errno.ENOSPC: re.compile(
        r"no space left on device|disk is full|disk quota exceeded|os error 28|code: 28\b"
        r"|inline_container\S*\] \. unexpected pos|PytorchStreamWriter failed writing",
        re.I,
    ),
    errno.EMFILE: re.compile(r"too many open files|os error 24|code: 24\b", re.I),
    errno.EROFS: re.compile(r"read-only file system|readonly database|os error 30|code: 30\b", re.I),
}
#: Open files that a run with its servers needs, and that it asks for where it may.
FEWEST_HANDLES, _WANTED_HANDLES = 256, 4096


@contextmanager
def clear_machine_errors() -> Iterator[None]:
    """Let errors of disk, permissions and file handles leave the block as one ``MachineError``.

    Raises:
        MachineError: The machine refused something.
    """
    try:
        yield
    except PreflowError:  # says what it is
        raise
    except Exception as error:
        clear = machine_error(error)
        if clear is None:
            raise
        raise clear from None


def machine_error(error: BaseException) -> MachineError | None:
    """What an error, or one of those that led to it, says about the machine; none where it says nothing of it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if (number := _number(cause)) is not None:
            return MachineError(_text(number, _place(cause)))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        inside = error.errno not in _REFUSED or _place(error).is_relative_to(preflow_home())
        return error.errno if error.errno in _FULL | _REFUSED | _HANDLES | _LONG and inside else None
    return next((number for number, text in _TEXTS.items() if text.search(str(error))), None)


def _place(error: BaseException) -> Path:
    named = getattr(error, "filename", None)
    return Path(os.fsdecode(named)).absolute() if isinstance(named, str | bytes) else preflow_home()


def _text(number: int, place: Path) -> str:
    if number in _LONG:
        return f"'{quoted(str(place))}' is longer than a file's name may be. Give a shorter path"
    folder = place if place.is_dir() else place.parent
    if number in _FULL:
        return f"the disk of {folder} is full. Free space there, or set PREFLOW_HOME to a folder on another disk"
    if number in _HANDLES:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"{soft} open files are allowed, and more are needed. Raise it: ulimit -n {_WANTED_HANDLES}"
    return f"{place} cannot be written: {os.strerror(number)}. Make it writable for this user, or set PREFLOW_HOME"


def ask_for_file_handles() -> None:
    """Raise this process's number of open files where it may be raised.

    Raises:
        MachineError: It stays too low: a run would hang at any moment.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_HANDLES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < FEWEST_HANDLES:
        raise MachineError(
            f"{soft} open files are allowed, expected {FEWEST_HANDLES} at least. Raise the limit: "
            f"ulimit -n {_WANTED_HANDLES} (nofile in limits.conf, LimitNOFILE= of a systemd unit)"
        )
