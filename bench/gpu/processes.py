"""Processes of a check: one for each part, which ends at its time limit, and what a part runs apart.

They begin as copies of this process by a fork, which has imported all packages already: that takes longer than many a
part. A process that has used CUDA cannot be copied; where the import of a package has done so, each process starts anew
and imports for itself.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
#: A part: gives its figures line by line.
Part = Callable[[Any, Path], Iterator[dict[str, Any]]]


def start_method(device: str) -> str:
    """How processes can start here: ``fork`` where a copy of this one can use the device, else ``spawn``."""
    process = _context("fork").Process(target=_touch, args=(device,))
    process.start()
    process.join()
    return "fork" if process.exitcode == 0 else "spawn"


def _touch(device: str) -> None:
    torch.zeros(1, device=device).item()


def _context(method: str) -> Any:
    return multiprocessing.get_context(method)


def in_child(method: str, function: Callable[[], T]) -> T:
    """What a function returns that runs in a process of its own.

    Raises:
        RuntimeError: The process died; what it said stands above.
    """
    ours, theirs = _context(method).Pipe(duplex=False)
    process = _context(method).Process(target=_answer, args=(function, theirs))
    process.start()
    theirs.close()
    try:
        result: T = ours.recv()
    except EOFError as error:
        raise RuntimeError(f"a process that ran {function} gave no result") from error
    finally:
        process.join()
    return result


def _answer(function: Callable[[], Any], pipe: Connection) -> None:
    pipe.send(function())


def run_part(part: Part, work: Any, out: Path, seconds: float, tell: Callable[[dict[str, Any]], None]) -> str:
    """Run a part in a process group of its own, and end all of it at the time limit.

    Args:
        part: What to run.
        work: Its workload, which names the start method.
        out: Where it may write.
        seconds: Time limit.
        tell: Receives each line as soon as the part has it.

    Returns:
        ``done``, or how it ended instead.
    """
    ours, theirs = _context(work.start_method).Pipe(duplex=False)
    process = _context(work.start_method).Process(target=_lead, args=(part, work, out, theirs))
    process.start()
    theirs.close()
    ended = _listen(ours, seconds, tell)
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if not ended:
        return f"stopped at its limit of {seconds:.0f} s"
    return "done" if process.exitcode == 0 else f"failed with exit code {process.exitcode}, see above"


def _listen(pipe: Connection, seconds: float, tell: Callable[[dict[str, Any]], None]) -> bool:
    """Pass lines on until the other end is closed; false where that takes too long."""
    end = time.monotonic() + seconds
    while pipe.poll(max(0.0, end - time.monotonic())):
        try:
            tell(pipe.recv())
        except EOFError:
            return True
    return False


def _lead(part: Part, work: Any, out: Path, pipe: Connection) -> None:
    os.setsid()
    for line in part(work, out):
        pipe.send(line)
