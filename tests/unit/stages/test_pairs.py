"""Scored pairs in columns: the same sums as pair by pair, and a million rows without a million objects."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflow.errors import ArtifactError
from preflow.stages.pairs import PairTable, ScoredPair, read_pairs, write_pairs

values = st.floats(-30, 0, width=32)
sides = st.lists(values, min_size=1, max_size=6)


def pair(chosen: list[float], rejected: list[float]) -> ScoredPair:
    return ScoredPair([1, 2], list(range(len(chosen))), list(range(len(rejected))), chosen, rejected, "f:1")


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=6), st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_columns_give_the_sums_of_each_pair(rows: list[tuple[list[float], list[float]]], alpha: float | None) -> None:
    pairs = [pair(chosen, rejected) for chosen, rejected in rows]
    scores = PairTable.of(pairs).reference_scores(alpha)
    for i, one in enumerate(pairs):
        chosen, rejected = one.reference_scores(alpha)
        assert scores["chosen"][i] == pytest.approx(chosen, abs=1e-9)
        assert scores["rejected"][i] == pytest.approx(rejected, abs=1e-9)


def test_the_tail_of_the_longer_response_is_weighted() -> None:
    """Shared length 1: -1 + 0.5 * (-2 - 4) = -4; the shorter response is summed plainly."""
    scores = PairTable.of([pair([-1, -2, -4], [-3])]).reference_scores(0.5)
    assert (scores["chosen"].tolist(), scores["rejected"].tolist()) == ([-4.0], [-3.0])


def test_sums_run_across_chunks() -> None:
    one, two = (PairTable.of([pair([-1, -2], [-3])]), PairTable.of([pair([-4], [-5, -6])] * 3))
    table = PairTable(pa.concat_tables([one.table, two.table.slice(1)]))
    assert table.reference_scores()["chosen"].tolist() == [-3.0, -4.0, -4.0]
    assert table.reference_scores(0.0)["rejected"].tolist() == [-3.0, -5.0, -5.0]


def test_a_response_without_tokens_is_refused() -> None:
    with pytest.raises(ArtifactError, match="row 1 has a response of 0 tokens"):
        PairTable.of([pair([-1], [-1]), pair([-1], [])]).reference_scores()


def test_a_table_is_a_sequence_of_pairs(tmp_path: Path) -> None:
    pairs = [pair([-float(i)], [-1.5]) for i in range(7)]
    write_pairs(tmp_path / "a.parquet", pairs)
    table = read_pairs(tmp_path / "a.parquet")
    assert list(table) == pairs
    assert [table[2], table[-1]] == [pairs[2], pairs[6]]
    assert list(table[::3][:2]) == pairs[::3][:2]
    with pytest.raises(IndexError):
        table[7]
    write_pairs(tmp_path / "b.parquet", PairTable(pa.concat_tables([table[:3].table, table[3:].table])))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert table.lengths("ref_chosen").tolist() == [1] * 7


MILLION = """
import resource, sys, time
import numpy as np, pyarrow as pa
from datasets import Dataset
from preflow.models.identity import Reference
from preflow.stages.logprob_store import LogprobStore, key_column
from preflow.stages.pairs import PairTable
from preflow.stages.shards import SCHEMA, ShardFolder

url, rows, tokens, mode = sys.argv[1], int(sys.argv[2]), 24, sys.argv[3]
reference = Reference({"weights": "w"}, "m", {})
rng = np.random.default_rng(0)
keys = np.frombuffer(rng.bytes(16 * rows), dtype="S16")


def lists(values, kind):
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, tokens), pa.int32()), pa.array(values, kind))


if mode == "write":
    folder = ShardFolder(f"{url}/{reference.digest()[:32]}", reference.digest())
    for start in range(0, rows, 4096):
        part = keys[start : start + 4096]
        values = rng.standard_normal(len(part) * tokens, dtype=np.float32)
        binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(part), [None, pa.py_buffer(part.tobytes())])
        sums = values.reshape(-1, tokens).sum(1, dtype=np.float64)
        count = np.full(len(part), tokens)
        columns = [binary, sums, count, lists(values, pa.float32()), np.zeros(len(part)), count]
        arrays = [pa.array(c).cast(f.type) if isinstance(c, np.ndarray) else c for c, f in zip(columns, SCHEMA)]
        folder.write(pa.Table.from_arrays(arrays, schema=SCHEMA))
    sys.exit()
ids = lists(np.ones(rows // 2 * tokens, np.int32), pa.int32())
import torch, trl  # imported by any training
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
stored = LogprobStore(url, reference).take(rng.permutation(keys))
assert len(stored) == rows
values = stored.column("logprobs")
places = {"ref_chosen": np.arange(0, rows, 2), "ref_rejected": np.arange(1, rows, 2)}
sides = {name: values.take(pa.array(place)) for name, place in places.items()}
names = {name: ids for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
table = PairTable(pa.table({**names, **sides, "source": pa.nulls(rows // 2, pa.string())}))
dataset = Dataset(table.training_columns(), fingerprint="f")
assert len(dataset) == rows // 2
assert np.isfinite(dataset[rows // 2 - 1]["ref_chosen_logps"])
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
size = rows * (tokens * 4 + 16 + 8 + 4 + 4 + 8)
print(time.perf_counter() - begin, grown / size)
"""


@pytest.mark.slow
def test_a_million_stored_rows_become_a_training_set_in_memory_near_their_size(tmp_path: Path) -> None:
    """Python objects would take thirty times the size: a float in a list costs 32 bytes and more."""
    (tmp_path / "million.py").write_text(MILLION, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "million.py"), str(tmp_path / "store"), "1000000"]
    subprocess.run([*command, "write"], check=True)
    done = subprocess.run([*command, "read"], check=True, capture_output=True, text=True)
    seconds, times = map(float, done.stdout.split())
    print(f"{seconds:.1f} s, {times:.1f} times the size of the rows")
    assert times < 6
    assert np.isfinite(seconds)
