"""Log-probs by content: computed once per weights, precision and token ids, kept in shards, shared by every run.

The key of a value is what it depends on and nothing else: the identity of the reference (``models.identity``) and the
token ids of one prompt and one response. Learning rates, betas, row order, file names, the other response of a pair do
not enter. Per-token values are kept, so that every score TRL's losses use, LD-DPO's included, is a sum over them.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from preflow.logprobs.arrow_memory import exact_memory
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.key_index import KeyIndex, Keys
from preflow.logprobs.row_buffer import RowBuffer
from preflow.logprobs.shards import KEY_BYTES, MERGE_COUNT, SHARD_SCHEMA, SMALL_ROWS, ShardFolder, inside, open_store
from preflow.models.packed.layout import PromptResponses

#: Describes the reference, beside its shards.
REFERENCE_FILE = "reference.json"
#: Names the reference in a reference artifact.
STORE_FILE = "store.json"
#: Digits of a reference's digest in its folder's name.
FOLDER_DIGITS = 32


def response_key(prompt: Sequence[int], response: Sequence[int]) -> bytes:
    """The content key of a prompt with one response: SHA-256 over both lists of token ids, the first 128 bits."""
    return prompt_hash(np.asarray(prompt, "<i4").tobytes())(np.asarray(response, "<i4").tobytes())


def prompt_hash(prompt: bytes | memoryview) -> Callable[[bytes | memoryview], bytes]:
    """What gives the key of a response to a prompt.

    Args:
        prompt: Token ids, 32 bits each, least significant byte first; so are those of the response.
    """
    # Without the prompt's length, another cut of the same tokens would be the same bytes.
    begun = hashlib.sha256((len(prompt) // 4).to_bytes(8, "little"))
    begun.update(prompt)

    def key(response: bytes | memoryview) -> bytes:
        hashed = begun.copy()
        hashed.update(response)
        return hashed.digest()[:KEY_BYTES]

    return key


def response_keys(groups: Iterable[PromptResponses]) -> Keys:
    """The keys of every response of every group, in order."""
    keys = b"".join(response_key(prompt, response) for prompt, responses in groups for response in responses)
    return np.frombuffer(keys, dtype=f"S{KEY_BYTES}")


class LogprobStore:
    """Per-token log-probs of responses under one reference, read whole and looked up by content."""

    def __init__(self, url: str | Path, reference: ReferenceIdentity) -> None:
        """Open the store of one reference and read its shards.

        Args:
            url: Where the stores of all references are: a folder or any fsspec URL.
            reference: Whose values these are.
        """
        self.reference = reference
        files, root = open_store(url)
        digest = reference.digest()
        self.shards = ShardFolder(files, inside(root, digest[:FOLDER_DIGITS]), digest)
        self._rows = RowBuffer()
        self._seen: dict[str, int] = {}  # shards read or written here, with their numbers of rows
        self._index = KeyIndex()
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def leases_folder(self) -> Path | None:
        """Where processes of this machine lease the rows they compute; none for a store behind a URL."""
        return Path(self.shards.path) / "leases" if self.shards.is_local else None

    def refresh(self) -> None:
        """Read the shards that other processes wrote since; rows of a merged shard are found in the new one."""
        tried: set[str] = set()  # a shard that cannot be read is tried once: it may be a broken link
        while new := sorted(self.shards.names() - self._seen.keys() - tried):
            tried.update(new)
            with exact_memory():
                keys = self._read(new)
            self._index.add(keys)  # all at once: each call costs a sort

    def _read(self, names: Iterable[str]) -> Keys:
        """Add the rows of some shards and return their keys."""
        keys = bytearray()
        for name in names:
            if (table := self.shards.read(name)) is not None:
                self._seen[name] = len(table)
                keys += self._hold(table).tobytes()
        return np.frombuffer(keys, f"S{KEY_BYTES}")

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Where each key's entry is in this store, -1 for those that it does not have."""
        return self._index.find(keys)

    def get(self, group: PromptResponses) -> list[list[float]]:
        """Per-token log-probs of a prompt's responses, nats, as many as each response has tokens."""
        values: list[list[float]] = self.take(response_keys([group])).column("logprobs").to_pylist()
        return values

    def take(self, keys: Keys) -> pa.Table:
        """The stored rows of some keys, in their order, with the columns of ``row_buffer.COLUMNS``.

        Raises:
            KeyError: One of them is not stored.
        """
        rows = self.find(keys)
        missing = int((rows < 0).sum())
        if missing:
            raise KeyError(f"{missing} of {len(keys)} responses are not in {self.shards.path}: fill the store first")
        return self._rows.take(rows)

    def seconds(self, rows: NDArray[np.int64]) -> float:
        """Seconds that computing some rows took, each row counted once."""
        return self._rows.seconds(rows)

    def add(self, columns: dict[str, list[Any]]) -> None:
        """Write one shard, and merge small ones when there are many."""
        if not self.shards.has(REFERENCE_FILE):  # the first shard, or the reference was pruned meanwhile
            self.describe()
        table = pa.table(columns, schema=SHARD_SCHEMA)
        self._seen[self.shards.write(table)] = len(table)
        self._index.add(self._hold(table))
        small = [name for name, count in self._seen.items() if count < SMALL_ROWS]
        if len(small) >= MERGE_COUNT:
            self._merge(small)

    def describe(self) -> None:
        """Write the description of the reference."""
        reference = self.reference
        about = {"label": reference.label, "digest": reference.digest(), "identity": reference.values}
        self.shards.put(REFERENCE_FILE, json.dumps(about, indent=1, sort_keys=True).encode())

    def note_usage(self, values: dict[str, float]) -> None:
        """Write a file with the requests of one run."""
        name = f"usage-{time.time_ns()}-{os.urandom(4).hex()}.json"
        self.shards.put(name, json.dumps({"time": time.time(), **values}).encode())

    def _merge(self, small: list[str]) -> None:
        """Merge shards, unless another process of this machine is merging."""
        if self.leases_folder is None:
            merged = self.shards.merge(small)
        else:
            try:
                with FileLock(self.leases_folder / "merge.lock", timeout=0):
                    merged = self.shards.merge(small)
            except Timeout:
                return
        if merged is not None:
            self._seen[merged] = SMALL_ROWS
        self._seen.update(dict.fromkeys(small, SMALL_ROWS))  # their rows are in a large one now

    def _hold(self, table: pa.Table) -> Keys:
        """Add the rows that are not held already; returns their keys, which are not in the index yet."""
        keys = key_column(table)
        new = self._index.find(keys) < 0
        if not new.all():  # a merged shard, or two writers stored the same row
            table, keys = table.filter(pa.array(new)), keys[new]
        if len(keys):
            self._rows.append(table)
        return keys


def key_column(table: pa.Table) -> Keys:
    """The keys of a table's rows, without a copy of each."""
    chunks = table.column("key").chunks
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * KEY_BYTES : (chunk.offset + len(chunk)) * KEY_BYTES]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([*parts, np.empty(0, np.uint8)]).view(f"S{KEY_BYTES}")
