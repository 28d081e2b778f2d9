"""Log-probs are computed once per content, and a damaged shard is never served."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.models.scoring import Group, Scorer
from preflow.observer import Silent
from preflow.stages.logprob_store import SHARD_ROWS, LogprobStore, group_key, numerics

WEIGHTS = {"weights": "abc", "precision": "cpu/float32"}


def group(i: int) -> Group:
    return [1, 2, i], ([3, i], [4])


class Counting:
    """A scorer that counts what it is asked; the values tell which group they belong to."""

    def __init__(self) -> None:
        self.asked: list[Group] = []
        self.loads = 0

    def load(self) -> Scorer:
        self.loads += 1
        return self.score

    def score(self, asked: Group) -> list[torch.Tensor]:
        self.asked.append(asked)
        return [torch.full((len(response),), -float(asked[0][-1])) for response in asked[1]]


def fill(folder: Path, groups: list[Group], identity: dict[str, Any] | None = None) -> tuple[LogprobStore, Counting]:
    counting = Counting()
    store = LogprobStore(folder, identity or WEIGHTS)
    store.fill(groups, counting.load, Silent(), "test")
    return store, counting


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    first, counting = fill(tmp_path, [group(i) for i in range(100)])
    assert len(counting.asked) == 100
    assert first.get(group(7)) == [[-7.0, -7.0], [-7.0]]
    _, again = fill(tmp_path, [group(i) for i in reversed(range(100))] + [group(3)])
    assert (again.asked, again.loads) == ([], 0)
    appended, more = fill(tmp_path, [group(i) for i in range(103)])
    assert more.asked == [group(100), group(101), group(102)]
    assert appended.get(group(102))[1] == [-102.0]


def test_a_group_asked_twice_is_computed_once(tmp_path: Path) -> None:
    assert len(fill(tmp_path, [group(1), group(1), group(2)])[1].asked) == 2


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"precision": "cuda/bfloat16"}, {"torch": "9"}])
def test_other_weights_or_numerics_share_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    fill(tmp_path, [group(1)])
    assert len(fill(tmp_path, [group(1)], {**WEIGHTS, **change})[1].asked) == 1


def test_a_single_changed_token_is_another_key() -> None:
    keys = {
        group_key(g) for g in [([1, 2], ([3], [4])), ([1], ([2, 3], [4])), ([1, 2], ([4], [3])), ([1, 2], ([3, 4],))]
    }
    assert len(keys) == 4


def test_a_damaged_shard_is_set_aside_and_recomputed(tmp_path: Path) -> None:
    groups = [group(i) for i in range(SHARD_ROWS + 5)]
    store, _ = fill(tmp_path, groups)
    shards = sorted(store.folder.glob("*.parquet"))
    assert len(shards) == 2
    content = bytearray(shards[0].read_bytes())
    content[len(content) // 2] ^= 1
    shards[0].write_bytes(bytes(content))
    again, counting = fill(tmp_path, groups)
    assert len(counting.asked) in (SHARD_ROWS, 5)
    assert [again.get(g) for g in groups] == [[[-float(i)] * 2, [-float(i)]] for i in range(len(groups))]
    assert len(list(store.folder.glob("*.broken"))) == 1


def test_a_kill_loses_at_most_one_shard(tmp_path: Path) -> None:
    counting = Counting()

    def dying(asked: Group) -> list[torch.Tensor]:
        if len(counting.asked) == 2 * SHARD_ROWS + 10:
            raise KeyboardInterrupt
        return counting.score(asked)

    groups = [group(i) for i in range(3 * SHARD_ROWS)]
    with pytest.raises(KeyboardInterrupt):
        LogprobStore(tmp_path, WEIGHTS).fill(groups, lambda: dying, Silent(), "test")
    assert len(fill(tmp_path, groups)[1].asked) == SHARD_ROWS


def test_two_writers_do_not_harm_each_other(tmp_path: Path) -> None:
    """Both opened the store before either wrote: each computes all, and the union is whole."""
    one, two = LogprobStore(tmp_path, WEIGHTS), LogprobStore(tmp_path, WEIGHTS)
    groups = [group(i) for i in range(10)]
    for store in (one, two):
        store.fill(groups, Counting().load, Silent(), "test")
    _, counting = fill(tmp_path, groups)
    assert counting.asked == []


def test_changed_code_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended mask must not be answered with the values of the broken one."""
    before = numerics("cpu/float32/float32")
    assert numerics("cpu/float32/float32") == before
    assert numerics("cpu/bfloat16/bfloat16") != before
    original = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: original(module).replace("tril()", "triu()"))
    assert numerics("cpu/float32/float32") != before
