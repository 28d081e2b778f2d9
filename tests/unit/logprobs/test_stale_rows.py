"""Rows or shards change behind the store's back, and no stale reference value is served.

Each way changes something behind the store's back. Afterwards the stored values of every pair must equal a forward of
the plainest kind of the model as it stands now. Where a change concerns no row, nothing may be computed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from preflow.environment import logprobs_url
from tests.unit.logprobs.stale_models import GROUPS, StaleModelFixture

pytestmark = pytest.mark.slow  # each test fills a store with a model's forwards


def tokens_swapped_between_chosen_and_rejected(b: StaleModelFixture) -> None:
    b.groups = [(prompt, (rejected, [*chosen, 3])) for prompt, (chosen, rejected) in b.groups]


def token_moved_from_prompt_to_response(b: StaleModelFixture) -> None:
    b.groups = [
        (prompt[:-1], ([prompt[-1], *chosen], [prompt[-1], *rejected])) for prompt, (chosen, rejected) in b.groups
    ]


def end_of_turn_cut_off(b: StaleModelFixture) -> None:
    b.groups = [(prompt, (chosen[:-1], rejected[:-1])) for prompt, (chosen, rejected) in b.groups]


def shard_damaged(b: StaleModelFixture) -> None:
    for shard in Path(logprobs_url()).rglob("*.parquet"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 4
        shard.write_bytes(bytes(data))


def shard_cut_short(b: StaleModelFixture) -> None:
    for shard in Path(logprobs_url()).rglob("*.parquet"):
        shard.write_bytes(shard.read_bytes()[:-9])


def shards_of_another_model_moved_in(b: StaleModelFixture) -> None:
    (mine,) = Path(logprobs_url()).iterdir()
    b.sft = "other"
    b.ask()
    (theirs,) = (folder for folder in Path(logprobs_url()).iterdir() if folder != mine)
    for shard in theirs.glob("*.parquet"):
        shard.unlink()
    for shard in mine.glob("*.parquet"):
        shutil.copy(shard, theirs)


def folder_of_another_model_renamed(b: StaleModelFixture) -> None:
    (mine,) = Path(logprobs_url()).iterdir()
    b.sft = "other"
    b.ask()
    (theirs,) = (folder for folder in Path(logprobs_url()).iterdir() if folder != mine)
    shutil.rmtree(theirs)
    mine.rename(theirs)


EVERY_ROW = [
    tokens_swapped_between_chosen_and_rejected,
    token_moved_from_prompt_to_response,
    end_of_turn_cut_off,
    shard_damaged,
    shard_cut_short,
    shards_of_another_model_moved_in,
    folder_of_another_model_renamed,
]


@pytest.mark.parametrize("way", EVERY_ROW, ids=lambda way: way.__name__)
def test_no_stale_value(stale_model: StaleModelFixture, way: Callable[[StaleModelFixture], None]) -> None:
    way(stale_model)
    assert stale_model.ask() == len(GROUPS)
    assert stale_model.ask(compare=False) == 0
