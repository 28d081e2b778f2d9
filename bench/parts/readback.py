"""Stored rows back into a training set: seconds and memory, in processes of their own.

``python -m bench.parts.readback FOLDER ROWS`` writes a store of so many responses there, and a second process reads it
the way the stages do: store, ``train.parquet`` of the reference stage, training set of DPO. It prints one JSON object:

- ``seconds``: from opening the store to the training set;
- ``store_memory``: growth of the resident memory at its peak, while the store is read and ``train.parquet`` is written,
  over the size of the stored rows;
- ``training_memory``: the same of the whole way, token ids included, over the size of the training set.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
from numpy.typing import NDArray

from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.pair_tokens import PairTokens
from preflow.logprobs.scored_pairs import read_pairs, write_blocks
from preflow.logprobs.shards import SHARD_SCHEMA, ShardFolder, open_store
from preflow.logprobs.store import LogprobStore
from preflow.models.peak_memory import PeakMemory

REFERENCE = ReferenceIdentity({"weights": "w"}, "a model", {})
#: Rows of a merged shard.
SHARD = 8192
#: Fewest and most tokens.
PROMPT, RESPONSE = (16, 80), (8, 40)


def lengths(seed: str, count: int, bounds: tuple[int, int]) -> NDArray[np.int64]:
    """The lengths of a column, the same in both processes."""
    return np.random.default_rng(list(seed.encode())).integers(bounds[0], bounds[1] + 1, count)


def lists(count: NDArray[np.int64], values: NDArray[np.generic]) -> pa.ListArray:
    """Rows of so many values."""
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def tokens(pairs: int) -> PairTokens:
    """Token ids of pairs, the same in both processes."""
    rng, columns = np.random.default_rng(0), {}
    for name, bounds in (("prompt_ids", PROMPT), ("chosen_ids", RESPONSE), ("rejected_ids", RESPONSE)):
        count = lengths(name, pairs, bounds)
        columns[name] = lists(count, rng.integers(0, 50_000, count.sum(), dtype=np.int32))
    sources = pa.array([f"pairs.jsonl:{row}" for row in range(pairs)])
    ids = pa.array([f"{row:064x}" for row in range(pairs)])
    return PairTokens(pa.table({**columns, "source": sources, "id": ids}))


def write(folder: Path, rows: int) -> None:
    """Write the store, its rows in another order than that of the pairs."""
    keys = tokens(rows // 2).keys
    count = np.empty(rows, np.int64)
    count[0::2], count[1::2] = (lengths(f"{side}_ids", rows // 2, RESPONSE) for side in ("chosen", "rejected"))
    shards = ShardFolder(*open_store(folder / "store" / REFERENCE.digest()[:32]), REFERENCE.digest())
    rng = np.random.default_rng(1)
    order = rng.permutation(rows)
    for start in range(0, rows, SHARD):
        part = order[start : start + SHARD]
        values = rng.standard_normal(count[part].sum(), dtype=np.float32)
        sums = np.add.reduceat(values.astype(np.float64), np.cumsum(count[part]) - count[part])
        binary = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(part), [None, pa.py_buffer(keys[part].tobytes())]
        )
        plain = [np.full(len(part), 0.1, np.float32), np.zeros(len(part), np.int64)]
        columns = [binary, sums, count[part].astype(np.int32), lists(count[part], values), *plain]
        shards.write(
            pa.Table.from_arrays(
                [pa.array(c) if isinstance(c, np.ndarray) else c for c in columns], schema=SHARD_SCHEMA
            )
        )


def read(folder: Path, rows: int) -> dict[str, float]:
    """Read it back."""
    from preflow.dpo.trainer import as_dataset  # imports torch and TRL, as any training does

    memory = PeakMemory(torch.device("cpu"))
    pairs = tokens(rows // 2)
    between, begin = psutil.Process().memory_info().rss, time.perf_counter()
    store = LogprobStore(folder / "store", REFERENCE)
    write_blocks(folder / "train.parquet", pairs.scored(store))
    grown, size = memory.peak() - between, stored_bytes(store, pairs)
    del store, pairs  # the stage is over
    table = read_pairs(folder / "train.parquet")
    dataset = as_dataset(table, None)
    seconds, taken = time.perf_counter() - begin, memory.above_idle()
    last = dataset[len(dataset) - 1]
    if taken is None:
        raise RuntimeError("memory cannot be measured here: /proc/self/clear_refs cannot be written")
    if len(dataset) != rows // 2 or not np.isfinite(last["ref_chosen_logps"]):
        raise RuntimeError(f"got {len(dataset)} rows, the last {last}; expected {rows // 2} with finite sums")
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "store_memory": round(grown / size, 2),
        "training_memory": round(taken / table.table.nbytes, 2),
    }


def stored_bytes(store: LogprobStore, pairs: PairTokens) -> int:
    """Size of the stored rows: values, key, sum, tokens, seconds, time."""
    parts = (pairs.table.column(name).combine_chunks().flatten() for name in ("chosen_ids", "rejected_ids"))
    values: int = sum(part.nbytes for part in parts)
    return values + len(store) * (16 + 8 + 4 + 4 + 8)


def measure(folder: Path, rows: int) -> dict[str, float]:
    """Write and read in processes of their own."""
    folder = folder / "readback"
    command = [sys.executable, "-m", "bench.parts.readback", str(folder), str(rows)]
    subprocess.run([*command, "write"], check=True)
    done = subprocess.run([*command, "read"], check=True, capture_output=True, text=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


if __name__ == "__main__":
    place, number, *part = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    if part == ["write"]:
        write(place, number)
    else:
        print(json.dumps(read(place, number) if part == ["read"] else measure(place, number)))
