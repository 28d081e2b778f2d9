"""SHA-256 of files and of JSON values, and a cache of digests that saves reading large files again."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

#: File systems on which a change of contents changes ctime in the end, and inode numbers stay. Those in memory (tmpfs)
#: do not: a page that is mapped and written again and again is never written back.
_LOCAL = frozenset(
    [
        "apfs",
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "hfsplus",
        "jfs",
        "overlay",
        "xfs",
        "zfs",
    ]
)
#: A file younger than this may change again unseen by its times: within one tick of the file system's clock, or through
#: a memory map, whose pages get new times only after they were written back (Linux: within about 35 seconds).
_YOUNG_NS = 60 * 10**9


def file_digest(path: Path) -> str:
    """SHA-256 of one file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys.

    Raises:
        ValueError: The value holds NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_stamp(path: Path) -> list[int]:
    """What the file system says of a file's contents: device, inode, size, mtime and ctime in nanoseconds.

    A program can set mtime back after an edit; ctime it cannot.
    """
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


class DigestCache:
    """SHA-256 of files, remembered by path, device, inode, size, mtime and ctime.

    On local file systems alone: others may keep no ctime. A file younger than a minute is read every time, since an
    edit within one tick of the clock, or through a memory map, would leave all of these as they are. A record that
    cannot be read is no record. Links are followed first, so that a hub cache's revisions share what they share; the
    names that such a cache gives its files are not believed: a copied cache, or one that was edited, keeps them.

    What this cannot see: a program that sets the machine's clock back, or writes to the disk below the file system.
    """

    def __init__(self, folder: Path) -> None:
        """Keep one small file per remembered file in ``folder``."""
        self._folder = folder

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes, reading it only if it may have changed since it was last read."""
        path = path.resolve()
        taken, stamp = time.time_ns(), file_stamp(path)
        record = self._folder / f"{json_digest(str(path))[:32]}.json"
        local = _is_local(path)
        if local:
            remembered = read_record(record)
            if remembered.get("stamp") == stamp and "sha256" in remembered:
                return str(remembered["sha256"])
        digest = file_digest(path)
        if local and file_stamp(path) == stamp and not _is_young(stamp, taken):
            replace_file(record, json.dumps({"path": str(path), "stamp": stamp, "sha256": digest}))
        return digest


def _is_young(stamp: list[int], taken: int) -> bool:
    return taken - max(stamp[-2:]) < _YOUNG_NS


def read_record(record: Path) -> dict[str, Any]:
    """What a small JSON file of ours holds; nothing where there is none, or none that can be read."""
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def replace_file(path: Path, text: str) -> None:
    """Write a small file as a whole, so that no process reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _is_local(path: Path) -> bool:
    """Whether a file is on a file system of this machine, as far as its kind is known."""
    resolved = path.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    places = (resolved, *resolved.parents)  # a single file can be a mount too
    kinds = (mounts[place] for place in places if place in mounts)
    return next(kinds, "") in _LOCAL
