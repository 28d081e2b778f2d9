"""What passes between stages: a small value that names a folder, proves its contents and says its size.

A stage writes into ``<final>.partial`` and the folder is renamed when complete, so a folder that exists is whole.
The manifest lists every file with its SHA-256; the artifact's digest is the SHA-256 of the manifest, so it depends
on contents and relative names alone. A killed stage finds its own partial folder again, checkpoints included.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from preflow.errors import ArtifactError
from preflow.fingerprints.files import file_digest, json_digest

MANIFEST = "manifest.json"
#: Sub-folder of a partial folder for what only a restart needs (checkpoints); removed when the stage is complete.
SCRATCH = "scratch"
#: Names the files of an artifact that leave the store for no other place, as they hold secrets.
WITHHELD = "withheld.json"
#: In a model's folder: which stage made it, over which base.
CARD = "preflow.json"


class Artifact(BaseModel):
    """A finished stage's folder: where it is, what it holds, how large it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """Absolute path of the folder."""
    digest: str
    """SHA-256 of the folder's manifest, in hexadecimal."""
    bytes: int
    """Total size of the files that the manifest lists."""

    def file(self, name: str) -> Path:
        """The path of one file or sub-folder of the artifact."""
        return Path(self.path) / name

    def load(self, name: str) -> Any:
        """The parsed contents of one JSON file of the artifact."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def digests_of(self, *names: str) -> dict[str, str | None]:
        """SHA-256 of some files of the artifact, by name, from its manifest; None for one that it does not have."""
        files = self.load(MANIFEST)["files"]
        return {name: files[name]["sha256"] if name in files else None for name in names}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that people can read and that is the same bytes for the same value.

    Text that no encoding can write (a lone surrogate) becomes its JSON escape.
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _listing(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): {"sha256": file_digest(p), "bytes": p.stat().st_size} for p in files}


def _artifact(folder: Path, files: dict[str, dict[str, Any]]) -> Artifact:
    size = sum(entry["bytes"] for entry in files.values())
    return Artifact(path=str(folder.resolve()), digest=json_digest(files), bytes=size)


def verify(folder: Path) -> Artifact:
    """Read every file of an artifact again and compare with the manifest.

    Raises:
        ArtifactError: The folder or its manifest is absent, or a file is missing, added or changed; names the first.
    """
    try:
        expected = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder} has no readable {MANIFEST}: {error}") from error
    found = _listing(folder)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ArtifactError(
                f"{folder / name} is not what the manifest says: got {found.get(name)}, expected "
                f"{expected.get(name)}. It is recomputed; delete the folder by hand if this repeats."
            )
    return _artifact(folder, expected)


def find(final: Path) -> Artifact | None:
    """The artifact at ``final`` if it is there and whole; a broken one is renamed, never returned."""
    if not final.exists():
        return None
    try:
        return verify(final)
    except ArtifactError:
        aside = final.with_name(f"{final.name}.broken-{os.getpid()}-{os.urandom(3).hex()}")
        final.rename(aside)
        return None


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """A lock that every user who may write to its folder can take, as far as the umask allows it.

    Raises:
        ArtifactError: Another user made it for himself alone.
    """
    try:
        with FileLock(path, mode=0o666 & ~_umask()):
            yield
    except PermissionError as error:
        if Path(error.filename or "") != path:
            raise
        raise ArtifactError(
            f"{path} is another user's lock: set PREFLOW_HOME to a folder of your own, or share this one with a group "
            "(chmod 2770, and umask 002 for everyone)"
        ) from error


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


def build(final: Path, write: Callable[[Path], None]) -> Artifact:
    """Return the artifact at ``final``, writing it first if it is not there or not whole.

    Args:
        final: The folder to make. Its name should be the stage's identity.
        write: Called with the partial folder, which may hold what an earlier, killed call left. What it puts under
            ``scratch/`` is removed before the folder becomes final.

    Two processes that build the same folder take turns; the second finds the first one's work.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with shared_lock(Path(f"{final}.lock")):
        artifact = find(final)
        if artifact is not None:
            return artifact
        partial = final.with_name(f"{final.name}.partial")
        partial.mkdir(exist_ok=True)
        write(partial)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        files = _listing(partial)
        write_json(partial / MANIFEST, {"files": files})
        partial.rename(final)
        return _artifact(final, files)
