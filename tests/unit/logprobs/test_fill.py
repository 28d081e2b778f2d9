"""What is computed of what is asked, what it is counted as, and what is refused before it is stored."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from preflow.distributed import Ranks
from preflow.errors import ModelError
from preflow.logprobs.fill import SHARD_GROUPS, FillStats, fill
from preflow.logprobs.store import LogprobStore, response_key
from preflow.models.packed.layout import PromptResponses
from preflow.models.scoring import BATCH_TOKENS
from preflow.observer import Silent
from tests.unit.support import MODEL, CountingScorer, filled, group


@pytest.mark.parametrize("by_length", [False, True])
def test_pairs_of_one_prompt_are_computed_a_few_at_a_time(tmp_path: Path, by_length: bool) -> None:
    """Neither a forward nor what a kill loses grows with the number of pairs that share a prompt."""
    counting, shards = CountingScorer(), list[list[PromptResponses]]()

    def score(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        shards.append(list(groups))
        yield from counting.score(groups)

    long = [5] * 1000
    groups: list[PromptResponses] = [([1, 2, 3], ([10 + i, *long], [5000 + i, *long])) for i in range(200)]
    store = LogprobStore(tmp_path, MODEL)
    stats = fill(store, groups, lambda: score, Silent(), "test", by_length=by_length)
    together = [len(asked[1]) for asked in counting.asked]
    assert sum(together) == stats.responses == len(store) == 400
    assert max(together) == (BATCH_TOKENS - 2) // 1001 if by_length else 4
    assert all(sum(len(responses) for _, responses in shard) <= 2 * SHARD_GROUPS for shard in shards)
    assert (stats.asked, stats.hit, stats.computed) == (200, 0, 200)
    assert len(filled(tmp_path, groups)[1].asked) == 0


def test_one_row_asked_ten_times_of_an_empty_store_is_no_hit(tmp_path: Path) -> None:
    first = filled(tmp_path, [group(1)] * 10)[2].metrics()
    assert [first[f"rows_{name}"] for name in ("asked", "hit", "repeated", "computed")] == [10, 0, 9, 1]
    again = filled(tmp_path, [group(1)] * 10 + [group(2)])[2].metrics()
    assert [again[f"rows_{name}"] for name in ("asked", "hit", "repeated", "computed")] == [11, 10, 0, 1]


def test_what_another_process_stored_meanwhile_is_not_counted_as_computed(tmp_path: Path) -> None:
    """Of two pairs with one prompt, the other process stores the first while this one still has other work."""
    url = f"memory://{tmp_path}"
    prompt = next([1, i] for i in range(99) if Ranks(1, 2).owns(response_key([1, i], [3])))
    groups: list[PromptResponses] = [(prompt, ([3], [4])), (prompt, ([5], [6]))]
    store, counting = LogprobStore(url, MODEL), CountingScorer()

    def meet() -> None:
        filled(url, groups[:1])

    stats = fill(store, groups, counting.load, Silent(), "test", ranks=Ranks(0, 2, meet))
    assert counting.asked == [(tuple(prompt), [[5], [6]])]
    assert (stats.asked, stats.hit, stats.repeated, stats.computed, stats.responses) == (2, 0, 0, 1, 2)


def test_ranks_together_hit_what_the_first_of_them_found() -> None:
    """The second one looked when the first had stored a row already; one of the rows is asked for twice."""
    parts = [FillStats(asked=9, hit=3, repeated=1, computed=4), FillStats(asked=9, hit=5, computed=1)]
    together = FillStats.together(parts)
    assert (together.asked, together.hit, together.repeated, together.computed) == (9, 3, 1, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.01])
def test_what_is_no_log_prob_is_not_stored(tmp_path: Path, value: float) -> None:
    def score(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        for asked, scored in zip(groups, CountingScorer().score(groups), strict=True):
            if asked[0][-1] == 2:
                scored[0][1] = value
            yield scored

    with pytest.raises(ModelError, match=r"a model gives .* as log-prob of token 2 .*ends in \[1, 2, 2\]"):
        fill(LogprobStore(tmp_path, MODEL), [group(i) for i in range(4)], lambda: score, Silent(), "test")
    assert len(LogprobStore(tmp_path, MODEL)) == 0


def test_a_certain_token_may_be_rounded_to_a_little_above_zero(tmp_path: Path) -> None:
    def score(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        yield from ([torch.full((len(r),), 1e-6) for r in responses] for _, responses in groups)

    fill(LogprobStore(tmp_path, MODEL), [group(1)], lambda: score, Silent(), "test")
    assert len(LogprobStore(tmp_path, MODEL)) == 2
