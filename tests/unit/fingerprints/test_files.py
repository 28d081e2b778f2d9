"""Digests of files are remembered as long as nothing can have changed, and no longer."""

import hashlib
import time
from pathlib import Path

import psutil
import pytest

from preflow.fingerprints import files
from preflow.fingerprints.files import file_stamp


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    """Two edits within one tick of the file system's clock leave the same times."""
    memory = files.DigestCache(tmp_path / "memory")
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    first = memory.digest(file)
    assert list((tmp_path / "memory").glob("*")) == []
    stamp = file_stamp(file)
    with pytest.MonkeyPatch.context() as patch:
        file.write_bytes(b"new")
        patch.setattr(files, "file_stamp", lambda path: stamp)  # the same tick
        assert memory.digest(file) != first


def test_an_old_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    reads: list[Path] = []
    read = files.file_digest

    def counted(path: Path) -> str:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(files, "file_digest", counted)
    trust_at_once(monkeypatch)
    memory = files.DigestCache(tmp_path / "memory")
    assert memory.digest(file) == memory.digest(file) == files.DigestCache(tmp_path / "memory").digest(file)
    assert len(reads) == 1
    monkeypatch.setattr(files, "_is_local", lambda path: False)
    memory.digest(file)
    assert len(reads) == 2, "a file system of another machine is never trusted"


def test_a_hub_files_name_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is copied, restored or linked anew keeps its names, whatever became of the contents."""
    trust_at_once(monkeypatch)
    blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(b"WEIGHTS")
    links = [tmp_path / "snapshots" / revision / "model.safetensors" for revision in ("first", "second")]
    memory, expected = files.DigestCache(tmp_path / "memory"), hashlib.sha256(b"WEIGHTS").hexdigest()
    for link in links:
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
    assert memory.digest(links[0]) == expected
    monkeypatch.setattr(files, "file_digest", lambda path: pytest.fail("it was read again for another revision"))
    assert memory.digest(links[1]) == expected


def test_a_file_that_was_young_when_its_stamp_was_taken_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took to read."""
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    begun = time.time_ns()
    monkeypatch.setattr(files, "_LOCAL", files._LOCAL | {"tmpfs"})
    monkeypatch.setattr(time, "time_ns", iter([begun, *[begun + 10**12] * 9]).__next__)
    files.DigestCache(tmp_path / "memory").digest(file)
    assert not list((tmp_path / "memory").glob("*"))


@pytest.mark.parametrize(("kind", "local"), [("ext4", True), ("nfs4", False), ("tmpfs", False)])
def test_a_file_can_be_a_mount_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, local: bool
) -> None:
    class Mount:
        def __init__(self, mountpoint: Path, fstype: str) -> None:
            self.mountpoint, self.fstype = str(mountpoint), fstype

    file = tmp_path / "weights"
    file.write_bytes(b"old")
    mounts = [Mount(Path("/"), "ext4"), Mount(file.resolve(), kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert files._is_local(file) == local


def trust_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember every file at once, wherever tests keep theirs."""
    monkeypatch.setattr(files, "_YOUNG_NS", 0)
    monkeypatch.setattr(files, "_LOCAL", files._LOCAL | {"tmpfs"})
