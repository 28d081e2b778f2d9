"""Digests of files are remembered as long as nothing can have changed, and no longer."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from preflow import digests
from preflow.digests import file_stamp


def test_a_file_younger_than_two_seconds_is_not_remembered(tmp_path: Path) -> None:
    """Two edits within one tick of the file system's clock leave the same times."""
    memory = digests.DigestMemory(tmp_path / "memory")
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    first = memory.digest(file)
    assert list((tmp_path / "memory").glob("*")) == []
    stamp = file_stamp(file)
    with pytest.MonkeyPatch.context() as patch:
        file.write_bytes(b"new")
        patch.setattr(digests, "file_stamp", lambda path: stamp)  # the same tick
        assert memory.digest(file) != first


def test_an_old_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"old")
    reads: list[Path] = []
    read = digests.file_digest

    def counted(path: Path) -> str:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(digests, "file_digest", counted)
    monkeypatch.setattr(digests, "_YOUNG_NS", 0)
    memory = digests.DigestMemory(tmp_path / "memory")
    assert memory.digest(file) == memory.digest(file) == digests.DigestMemory(tmp_path / "memory").digest(file)
    assert len(reads) == 1
    monkeypatch.setattr(digests, "_is_local", lambda path: False)
    memory.digest(file)
    assert len(reads) == 2, "a file system of another machine is never trusted"


def test_a_hub_file_is_known_by_its_name_until_it_is_touched(tmp_path: Path) -> None:
    name = hashlib.sha256(b"weights").hexdigest()
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    link = tmp_path / "snapshots" / "model.safetensors"
    link.parent.mkdir()
    time.sleep(0.05)
    link.symlink_to(blob)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "file_digest", lambda path: pytest.fail("it was read"))
        assert digests.DigestMemory(tmp_path / "memory").digest(link) == name
    stat = blob.stat()
    time.sleep(0.05)
    blob.write_bytes(b"WEIGHTS")
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digests.DigestMemory(tmp_path / "memory").digest(link) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_hub_file_edited_before_a_later_revision_links_to_it_is_read(tmp_path: Path) -> None:
    """The second link is younger than the edit; the first one is not."""
    name = hashlib.sha256(b"weights").hexdigest()
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    links = [tmp_path / "snapshots" / revision / "model.safetensors" for revision in ("first", "second")]
    for link, contents in zip(links, (b"WEIGHTS", None), strict=True):
        link.parent.mkdir(parents=True)
        time.sleep(0.05)
        link.symlink_to(blob)
        time.sleep(0.05)
        if contents:
            blob.write_bytes(contents)
    assert digests.DigestMemory(tmp_path / "memory").digest(links[1]) == hashlib.sha256(b"WEIGHTS").hexdigest()
