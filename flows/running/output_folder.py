"""The folder that a check leaves: written beside its place and moved there when whole. No other file is ever removed.

``written.json`` in it lists every file with its SHA-256. A folder is replaced only where it holds just these files, all
as they were written: one that was edited by hand since is a user's work.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from preflow.artifacts import write_json
from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.raw_rows import DataSource
from preflow.errors import ConfigError
from preflow.fingerprints.files import file_digest

#: What validation wrote into a folder, by name and SHA-256.
WRITTEN = "written.json"
_NAMED = 3
_FOREIGN = "no file"


@contextmanager
def result_folder(folder: Path, sources: Iterable[DataSource]) -> Iterator[Path]:
    """A new folder to write into, whose files are moved to ``folder`` when the block ends without an error.

    Args:
        folder: Where the files shall be: absent, empty, or left by an earlier check and not changed since.
        sources: Files that are read; none of them may be in ``folder``.

    Raises:
        ConfigError: ``folder`` cannot be made, holds a file that is read, or holds anything that no check wrote.
    """
    place = folder.resolve()
    earlier = _earlier(folder, place, sources)
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}-{os.urandom(3).hex()}")
    try:
        with _usable(folder):
            partial.mkdir(parents=True)
        yield partial
        with _usable(folder):
            write_json(partial / WRITTEN, {"files": _digests(partial)})
            _move(partial, place, earlier)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _earlier(folder: Path, place: Path, sources: Iterable[DataSource]) -> list[str]:
    """Names of the files of an earlier check, all of which may go."""
    for source in sources:
        if not is_hub(source.path) and Path(source.path).resolve().is_relative_to(place):
            raise ConfigError(
                f"{source.path} is read and is in {folder}, the folder for the results, which would be replaced: "
                "name another folder with --out"
            )
    with _usable(folder):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"--out {folder} is a file; expected a folder, or a name that is free")
        if not place.exists() or not any(place.iterdir()):
            return []
        found = _digests(place)
    written = _written(place)
    if written is None:
        raise ConfigError(f"--out {folder} is not empty and holds no earlier report; name a new folder")
    changed = sorted(name for name in found.keys() | written.keys() if found.get(name) != written.get(name))
    if changed:
        more = ", ..." if len(changed) > _NAMED else ""
        raise ConfigError(
            f"--out {folder} holds an earlier report, but {', '.join(changed[:_NAMED])}{more} was added, edited or "
            "removed since, so the folder is not replaced: name a new folder with --out, or move these files away"
        )
    return [*written, WRITTEN]


def _written(place: Path) -> dict[str, str] | None:
    """Names and digests that an earlier check wrote down; none where there was no such check."""
    try:
        files = json.loads((place / WRITTEN).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if isinstance(files, dict) else None


def _digests(place: Path) -> dict[str, str]:
    """What a folder holds, by name: a file's digest, or that it is none, which is never ours."""
    return {
        path.name: file_digest(path) if path.is_file() and not path.is_symlink() else _FOREIGN
        for path in place.iterdir()
        if path.name != WRITTEN
    }


def _move(partial: Path, place: Path, earlier: list[str]) -> None:
    place.mkdir(exist_ok=True)
    for name in earlier:
        (place / name).unlink(missing_ok=True)
    files = sorted(partial.iterdir(), key=lambda path: path.name == WRITTEN)  # the list last: it says that all is there
    for file in files:
        file.replace(place / file.name)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"--out {folder} cannot be written: {error.strerror or error}; name another folder"
        ) from error
