"""Tokenized pairs in columns: the same groups and keys as pair by pair, the right value for every response."""

from pathlib import Path

import numpy as np
import pytest

from preflow.data.rows import Source
from preflow.data.tokens.row_counts import RowCounts
from preflow.data.tokens.tokenize import TokenizedPair
from preflow.logprobs import pair_tokens, row_buffer
from preflow.logprobs.pair_tokens import PairTokens
from preflow.logprobs.scored_pairs import read_pairs, write_blocks
from preflow.logprobs.store import response_keys
from tests.unit.support import filled

PAIRS = [
    TokenizedPair([1, 2, i], [3, i] + [5] * (i % 3), [4 + i], Source("p.jsonl", i)) for i in [*range(40), 7, *range(9)]
]


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> PairTokens:
    """In blocks of 16, from pieces of 5: no block ends where a piece does."""
    monkeypatch.setattr(pair_tokens, "BLOCK", 16)
    return PairTokens.joined(PairTokens.of(PAIRS[start : start + 5]) for start in range(0, len(PAIRS), 5))


def test_groups_and_keys_are_those_of_the_pairs(tokens: PairTokens) -> None:
    groups = [(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in PAIRS]
    assert list(tokens) == groups
    assert [tokens[3], tokens[-1]] == [groups[3], groups[-1]]
    assert list(tokens[7:33]) == groups[7:33]
    assert tokens.keys.tolist() == response_keys(groups).tolist()
    assert tokens[7:33].keys.tolist() == response_keys(groups[7:33]).tolist()
    with pytest.raises(ValueError, match="step 2"):
        tokens[::2]


@pytest.mark.parametrize("pieces", [2, 64])
def test_every_response_gets_its_own_value(
    tokens: PairTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """The scorer gives minus the prompt's last token, which is the pair's number; shards hold 3 groups."""
    monkeypatch.setattr(row_buffer, "_SMALL_PIECES", pieces)
    monkeypatch.setattr("preflow.logprobs.fill.SHARD_GROUPS", 3)
    store, _, _ = filled(tmp_path, list(tokens))
    for one in (store, filled(tmp_path, list(tokens))[0]):
        write_blocks(tmp_path / "pairs.parquet", tokens.scored(one))
        table = read_pairs(tmp_path / "pairs.parquet")
        assert [pair.source for pair in table] == [str(pair.source) for pair in PAIRS]
        for pair, expected in zip(table, PAIRS, strict=True):
            assert pair.chosen_ids == expected.chosen_ids
            assert pair.ref_chosen == [-float(expected.source.row)] * len(expected.chosen_ids)
            assert pair.ref_rejected == [-float(expected.source.row)]
        assert one.seconds(np.arange(len(one)).repeat(2)) == pytest.approx(one.seconds(np.arange(len(one))))


def test_counts_of_parts_add_up() -> None:
    whole = RowCounts()
    for start in (0, 4):
        part = RowCounts(rows_in=4, used=2)
        for row in range(start, start + 2):
            part.drop("prompt_too_long", Source("p.jsonl", row))
        part.change("response_cut", Source("p.jsonl", start))
        whole.add(part)
    whole.check()
    assert (whole.rows_in, whole.used, whole.dropped["prompt_too_long"], whole.changed["response_cut"]) == (8, 4, 4, 2)
    assert whole.examples["prompt_too_long"] == ["p.jsonl:0", "p.jsonl:1", "p.jsonl:4", "p.jsonl:5"]
