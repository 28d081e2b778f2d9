"""Log-probs are computed once per content, and a damaged, foreign or half-written shard is never served."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from preflow.distributed import Ranks
from preflow.errors import ConfigError, ModelError
from preflow.logprobs import store as store_module
from preflow.logprobs.fill import SHARD_GROUPS, FillStats, fill
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.key_index import KeyIndex
from preflow.logprobs.leases import Choose, FileLeases
from preflow.logprobs.shards import SHARD_SCHEMA, ShardFolder
from preflow.logprobs.store import LogprobStore, response_key, response_keys
from preflow.models.packed.layout import PromptResponses
from preflow.observer import Silent
from tests.unit.support import MODEL, OTHER, CountingScorer, filled, group, values_of


def shard_files(store: LogprobStore) -> list[Path]:
    return sorted(Path(store.shards.path).glob("*.parquet"))


@pytest.fixture(params=["", "memory://", "dir::file://"], ids=["folder", "memory", "dir"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store in a folder, one behind a URL, one behind a chained URL."""
    return f"{request.param}{tmp_path}"


def test_only_what_is_missing_is_computed(url: str) -> None:
    first, counting, stats = filled(url, [group(i) for i in range(100)])
    assert (len(counting.asked), stats.computed, stats.responses) == (100, 100, 200)
    assert first.get(group(7)) == values_of(7)
    _, again, hit = filled(url, [group(i) for i in reversed(range(100))] + [group(3)])
    assert (again.asked, again.loads, hit.computed) == ([], 0, 0)
    appended, more, stats = filled(url, [group(i) for i in range(103)])
    assert [list(asked[0]) for asked in more.asked] == [[1, 2, 100], [1, 2, 101], [1, 2, 102]]
    assert (stats.asked, stats.computed) == (103, 3)
    assert appended.get(group(102)) == values_of(102)


def test_a_response_of_another_pair_is_found(url: str) -> None:
    """Pairs that share prompt and chosen: only the new rejected response is computed."""
    filled(url, [([1, 2], ([3], [4]))])
    store, counting, _ = filled(url, [([1, 2], ([3], [5])), ([1, 2], ([4], [3]))])
    assert [[list(r) for r in asked[1]] for asked in counting.asked] == [[[5]]]
    assert store.get(([1, 2], ([5], [4], [3]))) == [[-2.0]] * 3


def test_a_group_asked_twice_is_computed_once(tmp_path: Path) -> None:
    _, counting, stats = filled(tmp_path, [group(1), group(1), group(2)])
    assert (len(counting.asked), stats.computed, stats.asked) == (2, 2, 3)


def test_sums_counts_and_order(tmp_path: Path) -> None:
    store, _, _ = filled(tmp_path, [group(i) for i in range(5)])
    table = store.take(response_keys([group(4), group(2)]))
    assert table.column("total").to_pylist() == [-8.0, -4.0, -4.0, -2.0]
    assert table.column("tokens").to_pylist() == [2, 1, 2, 1]
    with pytest.raises(KeyError, match="1 of 2 responses"):
        store.take(response_keys([([1, 2, 3], ([3, 3], [99]))]))


def test_other_weights_share_nothing(tmp_path: Path) -> None:
    filled(tmp_path, [group(1)])
    assert len(filled(tmp_path, [group(1)], OTHER)[1].asked) == 1


def test_every_way_to_cut_the_same_tokens_is_another_key() -> None:
    cuts = [([1, 2], [3]), ([1], [2, 3]), ([1, 2, 3], []), ([1, 2], [3, 0]), ([1, 3], [2]), ([0, 1, 2], [3])]
    assert len({response_key(prompt, response) for prompt, response in cuts}) == len(cuts)


def test_a_damaged_shard_is_renamed_and_recomputed(tmp_path: Path) -> None:
    groups = [group(i) for i in range(SHARD_GROUPS + 5)]
    store, _, _ = filled(tmp_path, groups)
    files = shard_files(store)
    assert len(files) == 2
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    files[0].write_bytes(bytes(content))
    again, counting, _ = filled(tmp_path, groups)
    assert len(counting.asked) in (SHARD_GROUPS, 5)
    assert [again.get(g) for g in groups] == [values_of(i) for i in range(len(groups))]
    assert len(list(Path(again.shards.path).glob("*.broken"))) == 1


def test_a_shard_of_another_reference_is_not_believed(tmp_path: Path) -> None:
    mine, _, _ = filled(tmp_path, [group(1)])
    theirs, _, _ = filled(tmp_path, [group(2)], OTHER)
    for shard in shard_files(theirs):
        (Path(mine.shards.path) / shard.name).write_bytes(shard.read_bytes())
    store, counting, _ = filled(tmp_path, [group(1), group(2)])
    assert [list(asked[0]) for asked in counting.asked] == [[1, 2, 2]]
    assert len(store) == 4


def test_half_a_shard_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies between writing and moving leaves nothing that a reader takes for a shard."""
    store = LogprobStore(tmp_path, MODEL)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store.shards._files), "mv", die)
        with pytest.raises(KeyboardInterrupt):
            fill(store, [group(1)], CountingScorer().load, Silent(), "test")
    assert len(LogprobStore(tmp_path, MODEL)) == 0
    assert len(filled(tmp_path, [group(1)])[1].asked) == 1


def test_a_stop_loses_at_most_one_shard(tmp_path: Path) -> None:
    counting = CountingScorer()

    def dying(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        for scored in counting.score(groups):
            if len(counting.asked) == 2 * SHARD_GROUPS + 10:
                raise KeyboardInterrupt
            yield scored

    groups = [group(i) for i in range(3 * SHARD_GROUPS)]
    with pytest.raises(KeyboardInterrupt):
        fill(LogprobStore(tmp_path, MODEL), groups, lambda: dying, Silent(), "test")
    assert len(filled(tmp_path, groups)[1].asked) == SHARD_GROUPS


def test_rows_that_another_process_has_leased_are_left_to_it(tmp_path: Path) -> None:
    """A second one that wants the same rows takes the next shard, and waits for the first one's."""
    groups = [group(i) for i in range(2 * SHARD_GROUPS)]
    second, parts = CountingScorer(), list[FillStats]()

    def fill_too() -> None:
        parts.append(fill(LogprobStore(tmp_path, MODEL), groups, second.load, Silent(), "second"))

    thread = threading.Thread(target=fill_too)

    def first(asked: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        if not thread.ident:  # in the middle of the first shard
            thread.start()
            while len(second.asked) < SHARD_GROUPS and thread.is_alive():
                time.sleep(0.001)
        yield from CountingScorer().score(asked)

    stats = fill(LogprobStore(tmp_path, MODEL), groups, lambda: first, Silent(), "first")
    thread.join(timeout=60)
    assert (stats.computed, parts[0].computed) == (SHARD_GROUPS, SHARD_GROUPS)
    assert {asked[0][-1] for asked in second.asked} == set(range(SHARD_GROUPS, 2 * SHARD_GROUPS))


def test_leases_of_dead_processes_are_free(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    (tmp_path / "99999-dead.lease").write_bytes(b"k" * 16)
    seen: list[set[bytes]] = []

    def choosing(*keys: bytes) -> Choose:
        def choose(leased: set[bytes]) -> list[bytes]:
            seen.append(set(leased))
            return list(keys)

        return choose

    with leases.take(choosing(b"a" * 16)), FileLeases(tmp_path).take(choosing()):
        pass
    with leases.take(choosing()):
        pass
    assert seen == [set(), {b"a" * 16}, set()]
    assert list(tmp_path.glob("*.lease")) == []


def test_ranks_take_disjoint_rows_that_make_up_the_whole(url: str) -> None:
    groups = [group(i) for i in range(150)]
    met: list[int] = []
    parts = [CountingScorer() for _ in range(3)]
    for part in parts:
        store = LogprobStore(url, MODEL)
        ranks = Ranks(parts.index(part), 3, lambda: met.append(sum(len(other.asked) for other in parts)))
        fill(store, groups, part.load, Silent(), "test", ranks=ranks)
    keys = [response_keys(part.asked).tolist() for part in parts]
    assert sum(map(len, keys)) == len({key for part_keys in keys for key in part_keys}) == 300
    if "://" in url:  # nothing is leased there, so the shares alone keep the ranks apart
        assert 30 < met[0] < 70, "the first rank did not begin with its own third"
    assert [sum(Ranks(i, 3).owns(key) for i in range(3)) for key in keys[0]] == [1] * len(keys[0])


@pytest.mark.slow
def test_small_shards_are_merged_and_nothing_is_lost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MERGE_COUNT", 4)
    onlooker = LogprobStore(url, MODEL)
    groups = [group(i) for i in range(6 * SHARD_GROUPS)]
    store, _, _ = filled(url, groups)
    assert len(store.shards.names()) == 3  # four in one, two since
    onlooker.refresh()
    fresh, counting, _ = filled(url, groups)
    assert counting.asked == []
    for reader in (store, onlooker, fresh):
        assert len(reader) == 2 * len(groups)
        assert [reader.get(g) for g in groups] == [values_of(i) for i in range(len(groups))]


def test_a_reader_survives_a_merge_between_listing_and_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, [group(i) for i in range(3 * SHARD_GROUPS)])
    merged: list[int] = []
    read = ShardFolder.read

    def late(folder: ShardFolder, name: str) -> object:
        if not merged:
            merged.append(1)  # the merge itself reads as well
            folder.merge(sorted(folder.names()))
        return read(folder, name)

    monkeypatch.setattr(ShardFolder, "read", late)
    store = LogprobStore(tmp_path, MODEL)
    assert len(store) == 6 * SHARD_GROUPS


def test_the_index_finds_keys_that_end_in_zeros() -> None:
    index = KeyIndex()
    keys = np.frombuffer(b"a" * 15 + b"\0" + b"b" * 14 + b"\0\0", dtype="S16")
    index.add(keys)
    assert index.find(keys).tolist() == [0, 1]
    index.add(np.frombuffer(np.arange(20_000, dtype="<u8").repeat(2).tobytes(), dtype="S16"))
    assert index.find(keys).tolist() == [0, 1]
    assert index.find(np.frombuffer(b"c" * 16, dtype="S16")).tolist() == [-1]
    assert index.size == 20_002


def test_the_store_says_whose_it_is(tmp_path: Path) -> None:
    store, _, _ = filled(tmp_path, [group(1)])
    about = json.loads((Path(store.shards.path) / "reference.json").read_text())
    assert about == {"label": "a model", "digest": MODEL.digest(), "identity": {"weights": "abc"}}
    assert pq_schema(store) == SHARD_SCHEMA.names


def pq_schema(store: LogprobStore) -> list[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(shard_files(store)[0]).names
    return names


def test_a_changed_file_of_the_model_stops_the_filling(tmp_path: Path) -> None:
    from preflow.fingerprints.files import file_stamp

    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"old")
    reference = ReferenceIdentity({"weights": "abc"}, "a model", {str(weights): file_stamp(weights)})

    def changing(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        weights.write_bytes(b"newer")
        yield from CountingScorer().score(groups)

    with pytest.raises(ModelError, match=r"model\.safetensors was changed"):
        fill(LogprobStore(tmp_path / "s", reference), [group(1)], lambda: changing, Silent(), "test")
    assert len(LogprobStore(tmp_path / "s", reference)) == 0


def test_a_chained_url_names_the_folder_itself(tmp_path: Path) -> None:
    filled(f"dir::file://{tmp_path}", [group(1)])
    assert [path.name for path in tmp_path.iterdir()] == [MODEL.digest()[:32]]
    assert filled(tmp_path, [group(1)])[1].asked == []


@pytest.mark.parametrize("chain", ["simplecache::memory://x", "filecache::file:///x"])
def test_other_chained_urls_are_refused(chain: str) -> None:
    with pytest.raises(ConfigError, match=r"begins with \w+cache::"):
        LogprobStore(chain, MODEL)


def test_a_link_that_leads_nowhere_does_not_hold_up_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _, _ = filled(tmp_path, [group(1)])
    (Path(store.shards.path) / "x.parquet").symlink_to(tmp_path / "nowhere")
    names, listed = ShardFolder.names, list[int]()

    def few_times(folder: ShardFolder) -> set[str]:
        listed.append(1)
        assert len(listed) < 5, "it lists the folder again and again"
        return names(folder)

    monkeypatch.setattr(ShardFolder, "names", few_times)
    assert len(LogprobStore(tmp_path, MODEL)) == 2


def test_a_reference_pruned_while_it_is_filled_says_whose_it_is_again(tmp_path: Path) -> None:
    store, _, _ = filled(tmp_path, [group(1)])
    store.shards.clear()
    fill(store, [group(2)], CountingScorer().load, Silent(), "test")
    assert json.loads((Path(store.shards.path) / "reference.json").read_text())["digest"] == MODEL.digest()
