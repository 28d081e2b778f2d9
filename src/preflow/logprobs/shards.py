"""The files of the log-prob store: Parquet shards on any file system, each whole or absent, each checked when read.

A shard's name begins with the SHA-256 of its bytes, and its schema names the reference that it belongs to. It is
written beside its place and moved, so no reader sees a part of one; its name is used once, so writers never collide. A
merge writes one large shard before it removes the small ones that it replaces: at no time is a row in no file. Every
removed shard was listed before the one that holds its rows was written, so no two merges can remove each other's work.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from preflow.errors import ArtifactError, ConfigError

#: Bytes of a row's key: 128 bits of SHA-256.
KEY_BYTES = 16
SHARD_SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),  # of prompt and response
        ("total", pa.float64()),  # sum of the log-probs, nats
        ("tokens", pa.int32()),  # of the response
        ("logprobs", pa.list_(pa.float32())),  # of each response token, nats
        ("seconds", pa.float32()),  # what the row's computation took
        ("created", pa.int64()),  # when, in seconds since 1970
    ]
)
#: Shards with fewer rows are merged once there are ``MERGE_COUNT`` of them.
SMALL_ROWS = 2048
MERGE_COUNT = 64
_OWNER = b"preflow-reference"
#: Names of the files that the store writes into a reference's folder.
_OWN = re.compile(
    r"[0-9a-f]{64}-[0-9a-f]+\.parquet(\.broken)?|usage-[\w-]+(\.\w+)*|partial-[\w-]+|reference\.json|[\w-]+\.(lease|lock)"
)


def open_store(url: str | Path) -> tuple[Any, str]:
    """The file system of a store and the store's folder on it.

    Args:
        url: A local folder or any fsspec URL; of chained ones, those of ``dir::``.

    Raises:
        ConfigError: Another chained URL.
    """
    files, path = fsspec.core.url_to_fs(str(url))
    if isinstance(files, DirFileSystem):
        return files, ""  # its paths begin at the folder that the URL names
    protocol, chained, _ = str(url).partition("::")
    if chained and protocol.isalnum():
        raise ConfigError(
            f"the log-prob store's URL begins with {protocol}::, expected one file system (of chained URLs, dir:: "
            "alone): a cache or an archive in between may serve files as they were. Name the store itself"
        )
    return files, path


def inside(folder: str, name: str) -> str:
    """The path of an entry of a folder; the root of a ``dir::`` URL is the empty path."""
    return f"{folder}/{name}" if folder else name


class ShardFolder:
    """The shards of one reference."""

    def __init__(self, files: Any, path: str, reference: str) -> None:
        """Name the folder; it is created with the first shard.

        Args:
            files: Its file system, from ``open_store``.
            path: The folder there.
            reference: Digest of the reference; shards of another one are renamed.
        """
        self._files, self.path = files, path
        self.is_local = isinstance(files, LocalFileSystem)
        self.reference = reference

    def names(self) -> set[str]:
        """The shards that exist now."""
        if not self._files.exists(self.path):
            return set()
        self._files.invalidate_cache(self.path)
        found = self._files.ls(self.path, detail=False)
        return {name.rpartition("/")[2] for name in found if name.endswith(".parquet")}

    def has(self, name: str) -> bool:
        """Whether a file exists now."""
        return bool(self._files.exists(f"{self.path}/{name}"))

    def read(self, name: str) -> pa.Table | None:
        """A shard's rows; none if it was removed (by a merge) or is damaged; a damaged one is renamed."""
        try:
            return self.read_checked(name)
        except FileNotFoundError:
            return None
        except ArtifactError:
            self._mark_damaged(name)
            return None

    def read_checked(self, name: str) -> pa.Table:
        """A shard's rows; a damaged one is not renamed.

        Raises:
            FileNotFoundError: It was removed.
            ArtifactError: It is damaged, or belongs to another reference.
        """
        data = self._files.cat_file(f"{self.path}/{name}")
        if hashlib.sha256(data).hexdigest() != name.partition("-")[0]:
            raise ArtifactError(f"{self.path}/{name} is damaged: its SHA-256 is not the one that its name begins with")
        table = pq.read_table(pa.BufferReader(data))
        owner = (table.schema.metadata or {}).get(_OWNER, b"").decode()
        if owner != self.reference or not table.schema.remove_metadata().equals(SHARD_SCHEMA):
            raise ArtifactError(f"{self.path}/{name} holds rows of reference {owner!r}, expected {self.reference!r}")
        return table.replace_schema_metadata(None)

    def write(self, table: pa.Table) -> str:
        """Write one shard and give its name."""
        sink = pa.BufferOutputStream()
        pq.write_table(table.cast(SHARD_SCHEMA).replace_schema_metadata({_OWNER: self.reference}), sink)
        data = sink.getvalue().to_pybytes()
        unique = os.urandom(4).hex()
        name = f"{hashlib.sha256(data).hexdigest()}-{unique}.parquet"
        self._files.makedirs(self.path, exist_ok=True)
        self.put(name, data)
        return name

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the folder, whole or not at all."""
        self._files.makedirs(self.path, exist_ok=True)
        partial = f"{self.path}/partial-{os.getpid()}-{os.urandom(4).hex()}"
        self._files.pipe_file(partial, data)
        self._files.mv(partial, f"{self.path}/{name}")

    def remove(self, names: Iterable[str]) -> None:
        """Remove shards; one that is already removed is ignored."""
        for name in names:
            try:
                self._files.rm_file(f"{self.path}/{name}")
            except FileNotFoundError:
                continue

    def clear(self) -> list[str]:
        """Remove the store's own files, and the folder where nothing else is in it; gives the names of what is."""
        self._files.invalidate_cache(self.path)
        names = [name.rstrip("/").rpartition("/")[2] for name in self._files.ls(self.path, detail=False)]
        others = sorted(name for name in names if _OWN.fullmatch(name) is None)
        self.remove(name for name in names if name not in others)
        if not others and self._files.exists(self.path):  # a folder of an object store goes with its last file
            self._files.rmdir(self.path)
        return others

    def older(self, names: Iterable[str], age: float) -> list[str]:
        """Those files of the folder that were written ``age`` seconds ago or earlier."""
        found = []
        for name in names:
            try:
                written = self._files.modified(f"{self.path}/{name}")
            except FileNotFoundError:
                continue
            if datetime.now(written.tzinfo) - written >= timedelta(seconds=age):
                found.append(name)
        return found

    def merge(self, names: Sequence[str]) -> str | None:
        """Put the rows of small shards into one; gives its name, or none if there was nothing left to merge."""
        tables = {name: table for name in names if (table := self.read(name)) is not None}
        if len(tables) < 2:
            return None
        merged = self.write(without_repeats(pa.concat_tables(tables.values())))
        self.remove(tables)
        return merged

    def _mark_damaged(self, name: str) -> None:
        try:
            self._files.mv(f"{self.path}/{name}", f"{self.path}/{name}.broken")
        except FileNotFoundError:  # another reader was faster
            return


def without_repeats(table: pa.Table) -> pa.Table:
    """The first row of every key, in order."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by("key", use_threads=False).aggregate([("row", "min")]).column("row_min")
    return table if len(first) == len(table) else table.take(first.combine_chunks().sort())
