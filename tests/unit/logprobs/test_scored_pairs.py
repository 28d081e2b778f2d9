"""Scored pairs in columns: the same sums as pair by pair, and a million rows without a million objects."""

import math
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.parts.readback import measure
from preflow.errors import ArtifactError
from preflow.logprobs.scored_pairs import PairTable, ScoredPair, read_pairs
from tests.unit.support import write_pairs

values = st.floats(-30, 0, width=32)
responses = st.lists(values, min_size=1, max_size=6)


def pair(chosen: list[float], rejected: list[float]) -> ScoredPair:
    return ScoredPair([1, 2], list(range(len(chosen))), list(range(len(rejected))), chosen, rejected, "f:1")


def weighted_sum(values: list[float], other: list[float], alpha: float | None) -> float:
    """Token by token: 1 up to the length of the shorter response, then alpha."""
    weights = [1.0 if i < len(other) or alpha is None else alpha for i in range(len(values))]
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True))


@pytest.mark.slow
@given(st.lists(st.tuples(responses, responses), min_size=1, max_size=6), st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_columns_give_the_sums_of_each_pair(rows: list[tuple[list[float], list[float]]], alpha: float | None) -> None:
    pairs = [pair(chosen, rejected) for chosen, rejected in rows]
    scores = PairTable.of(pairs).reference_scores(alpha)
    for i, one in enumerate(pairs):
        chosen, rejected = one.ref_chosen, one.ref_rejected
        assert scores["chosen"][i] == pytest.approx(weighted_sum(chosen, rejected, alpha), abs=1e-9)
        assert scores["rejected"][i] == pytest.approx(weighted_sum(rejected, chosen, alpha), abs=1e-9)


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


@pytest.mark.nightly
def test_a_million_stored_rows_become_a_training_set_in_memory_near_their_size(tmp_path: Path) -> None:
    """Measured: 1.4 and 1.6 times. Each table that is held once more adds about one; Python objects add thirty."""
    measured = measure(tmp_path, 1_000_000)
    print(measured)
    assert measured["store_memory"] < 1.6
    assert measured["training_memory"] < 1.9
