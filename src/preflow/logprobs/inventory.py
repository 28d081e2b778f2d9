"""A list of what a log-prob store contains; reads it and changes nothing, whatever is stored there."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preflow.errors import ArtifactError
from preflow.logprobs.key_index import Keys
from preflow.logprobs.shards import KEY_BYTES, ShardFolder, inside, open_store
from preflow.logprobs.store import FOLDER_DIGITS, REFERENCE_FILE, key_column

#: What a damaged shard's name ends in once a reader has renamed it.
ASIDE = ".broken"


@dataclass(slots=True)
class StoredReference:
    """The stored log-probs of one reference. Of its rows only the keys are held in memory.

    Attributes:
        folder: Its shards.
        label: The model's name, for display.
        files: Size of every file, bytes.
        keys: The keys of the rows, by intact shard.
        newest: When the newest row was computed, seconds since 1970.
        usage: What each run requested.
        damaged: Unusable files: damaged shards, renamed or not, and unreadable usage files.
    """

    folder: ShardFolder
    label: str
    files: dict[str, int]
    keys: dict[str, Keys] = field(default_factory=dict)
    newest: float = 0.0
    usage: list[dict[str, float]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The reference's name: the first digits of its digest."""
        return self.folder.reference[:FOLDER_DIGITS]

    @property
    def rows(self) -> int:
        """Responses stored, each counted once."""
        return len(different(self.keys.values()))

    @property
    def bytes(self) -> int:
        """Size of the intact shards."""
        return sum(self.files[name] for name in self.keys)

    def asked(self, name: str) -> float:
        """A count summed over all runs."""
        return sum(entry.get(name, 0.0) for entry in self.usage)


def inventory(url: str) -> tuple[list[StoredReference], list[str]]:
    """Every reference in a store, the newest last; and the names of the folders there that are none."""
    files, root = open_store(url)
    if not files.exists(root):
        return [], []
    found: list[StoredReference] = []
    others: list[str] = []
    for entry in files.ls(root, detail=True):
        if entry["type"] == "directory":
            name = entry["name"].rstrip("/").rpartition("/")[2]
            about = _about(files, inside(root, name), name)
            if about is None:
                others.append(name)
            else:
                found.append(_stored_reference(files, inside(root, name), about))
    return sorted(found, key=lambda stored: stored.newest), sorted(others)


def different(keys: Iterable[Keys]) -> Keys:
    """The keys of several shards together, each once."""
    return np.unique(np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *keys]))


def _about(files: Any, path: str, name: str) -> dict[str, str] | None:
    """The description in a reference's folder; none for a folder that is not a reference's."""
    try:
        about = json.loads(files.cat_file(f"{path}/{REFERENCE_FILE}"))
        digest = about["digest"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    is_named_so = isinstance(digest, str) and len(name) == FOLDER_DIGITS and digest.startswith(name)
    return {"digest": digest, "label": str(about.get("label", "unknown"))} if is_named_so else None


def _stored_reference(files: Any, path: str, about: dict[str, str]) -> StoredReference:
    sizes = {
        e["name"].rpartition("/")[2]: e["size"] or 0 for e in files.ls(path, detail=True) if e["type"] != "directory"
    }
    stored = StoredReference(ShardFolder(files, path, about["digest"]), about["label"], sizes)
    for name in sorted(sizes):
        if name.endswith(".parquet"):
            _read_shard(stored, name)
        elif name.startswith("usage-"):
            _note_usage(stored, name, files.cat_file(f"{path}/{name}"))
        elif name.endswith(ASIDE):
            stored.damaged.append(name)
    return stored


def _read_shard(stored: StoredReference, name: str) -> None:
    """Record a shard's keys, or that it is damaged or a broken link."""
    try:
        table = stored.folder.read_checked(name)
    except (ArtifactError, FileNotFoundError):
        stored.damaged.append(name)
        return
    stored.keys[name] = key_column(table).copy()
    if len(table):
        stored.newest = max(stored.newest, float(table.column("created").to_numpy().max()))


def _note_usage(stored: StoredReference, name: str, data: bytes) -> None:
    try:
        entry = json.loads(data)
    except ValueError:
        entry = None
    if isinstance(entry, dict) and all(isinstance(value, int | float) for value in entry.values()):
        stored.usage.append(entry)
    else:
        stored.damaged.append(name)
