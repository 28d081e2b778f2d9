"""Which process computes which rows, where several fill one store at the same time on this machine.

A process writes down the keys that it is about to compute and holds a lock for as long as it computes them. The kernel
frees the lock of a killed process, so its rows are free again at once. On a file system without such locks (a store
behind a URL) nothing is leased: rows may then be computed twice, and the store keeps the first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from preflow.logprobs.shards import KEY_BYTES

#: Given the keys that others are computing now, chooses the keys to compute next.
Choose = Callable[[set[bytes]], list[bytes]]


class Leases(Protocol):
    """Keeps processes from computing the same rows."""

    def take(self, choose: Choose) -> AbstractContextManager[None]:
        """Lease what ``choose`` gives for as long as the block lasts."""

    def wait(self) -> None:
        """Return when a process that is computing has finished, or has ended."""


class NoLeases:
    """No leases: every process computes whatever is missing."""

    @contextmanager
    def take(self, choose: Choose) -> Iterator[None]:
        """Choose among everything."""
        choose(set())
        yield

    def wait(self) -> None:
        """Return at once: no lease is ever taken."""


class FileLeases:
    """Leases of the processes of this machine, in a folder beside the shards."""

    def __init__(self, folder: Path) -> None:
        """Keep leases in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ledger = FileLock(folder / "ledger.lock")

    @contextmanager
    def take(self, choose: Choose) -> Iterator[None]:
        """Lease what ``choose`` gives; it is called while no other process takes or returns a lease."""
        mine = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}.lease"
        lock = FileLock(_lock_of(mine))
        with self._ledger:
            keys = choose(self._others())
            if keys:
                lock.acquire()
                mine.write_bytes(b"".join(keys))
        try:
            yield
        finally:
            if keys:
                mine.unlink(missing_ok=True)
                lock.release()
                _lock_of(mine).unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait for the lock of any live lease."""
        for lease in self._folder.glob("*.lease"):
            with FileLock(_lock_of(lease)):
                pass
            _lock_of(lease).unlink(missing_ok=True)
            return

    def _others(self) -> set[bytes]:
        """Keys of live leases; leases of processes that have ended are removed."""
        keys: set[bytes] = set()
        for lease in self._folder.glob("*.lease"):
            try:
                with FileLock(_lock_of(lease), timeout=0):
                    lease.unlink(missing_ok=True)  # its process is gone, or has just finished
                _lock_of(lease).unlink(missing_ok=True)
            except Timeout:
                data = _read(lease)
                keys.update(data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES))
        return keys


def _lock_of(lease: Path) -> Path:
    return lease.with_suffix(".lock")


def _read(lease: Path) -> bytes:
    try:
        return lease.read_bytes()
    except FileNotFoundError:  # returned since it was listed
        return b""
