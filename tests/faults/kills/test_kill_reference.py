"""A store that is filled by processes that die at any moment, or by several at once, ends as one that was not.

A kill at each step that leaves something in the store is part of ``make test``; twenty kills at random moments run
nightly.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from preflow.config import Recipe
from preflow.logprobs import store as store_module
from preflow.logprobs.fill import SHARD_GROUPS, _Filling, fill
from preflow.logprobs.identity import ReferenceIdentity, identify
from preflow.logprobs.key_index import KeyIndex
from preflow.logprobs.shards import ShardFolder
from preflow.logprobs.store import LogprobStore, response_key, response_keys
from preflow.models.loading import load_policy
from preflow.models.packed.layout import PromptResponses
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef
from preflow.models.scoring import scores
from preflow.observer import Silent

KILLS = 20
GROUPS: list[PromptResponses] = [
    ([1, 3 + i % 250, 3 + i // 250, 9], ([20, 21, 1], [40, 3 + i % 7, 42, 1])) for i in range(1500)
]


def _own_lease(arguments: tuple[Any, ...]) -> bool:
    path: Path = arguments[0]
    return path.name.startswith(f"{os.getpid()}-") and path.suffix == ".lease"


def _any(arguments: tuple[Any, ...]) -> bool:
    return True


#: A process is killed before it makes this call for the nth time: owner, method, which calls count, n. Each leaves
#: another part of its work behind; the comment says which.
WRITE_POINTS: dict[str, tuple[type, str, Callable[[tuple[Any, ...]], bool], int]] = {
    "lease": (Path, "write_bytes", _own_lease, 1),  # a lock without a lease
    "compute": (_Filling, "_compute", _any, 1),  # a lease of rows that no process computes
    "within a shard": (_Filling, "_require_logprobs", _any, 10),  # values in memory
    "description": (LocalFileSystem, "mv", lambda given: given[2].endswith("reference.json"), 1),  # no description
    "partial": (LocalFileSystem, "pipe_file", lambda given: given[2][:4] == b"PAR1", 1),  # a description of no shard
    "rename": (LocalFileSystem, "mv", lambda given: given[2].endswith(".parquet"), 1),  # a shard under another name
    "index": (KeyIndex, "add", _any, 1),  # a shard that the process had not indexed
    "merge": (ShardFolder, "merge", _any, 1),  # three small shards
    "merged": (ShardFolder, "remove", _any, 1),  # a large shard beside the small ones that it holds
    "half removed": (LocalFileSystem, "rm_file", _any, 2),  # a large shard beside some of them
    "release": (Path, "unlink", _own_lease, 1),  # a lease of rows that are stored
}


def die_at(point: str) -> None:
    """Let this process be killed when it comes to a write point; it merges three shards, not 64."""
    owner, name, counts, nth = WRITE_POINTS[point]
    method = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += counts(arguments)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **options)

    setattr(owner, name, counted)
    vars(store_module)["MERGE_COUNT"] = 3


def work(home: str, base: ModelRef, url: str, log: str, death: str | None = None) -> None:
    """Fill the store with every group; leave a line for each group that was computed.

    Args:
        home: The state folder.
        base: Whose log-probs are stored.
        url: The store.
        log: Gets the lines.
        death: The write point at which this process is killed.
    """
    os.environ["PREFLOW_HOME"] = home
    torch.set_num_threads(1)
    recipe = Recipe(strategy="dpo", model_name=base.path)
    precision = choose_precision(recipe)
    store = LogprobStore(url, identify(base, None, recipe, precision))
    model = load_policy(base, None, recipe, precision)

    def score(groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        with Path(log).open("a", encoding="utf-8") as handle:
            for group, values in zip(groups, scores(model, groups, precision), strict=True):
                handle.write(f"{os.getpid()} {response_key(group[0], group[1][0]).hex()}\n")
                handle.flush()
                yield values

    if death is not None:
        die_at(death)
    fill(store, GROUPS, lambda: score, Silent(), "test")


class Runner:
    """Starts workers on one store."""

    def __init__(self, context: ForkServerContext, folder: Path, base: ModelRef) -> None:
        self.context, self.folder, self.base = context, folder, base
        self.log = folder / "log"
        self.log.touch()

    def start(self, url: str = "store", death: str | None = None) -> BaseProcess:
        arguments = (str(self.folder / "home"), self.base, str(self.folder / url), str(self.log), death)
        process = self.context.Process(target=work, args=arguments)
        process.start()
        return process

    @cached_property
    def identity(self) -> ReferenceIdentity:
        """Whose values the stores hold."""
        recipe = Recipe(strategy="dpo", model_name=self.base.path)
        os.environ["PREFLOW_HOME"] = str(self.folder / "home")
        return identify(self.base, None, recipe, choose_precision(recipe))

    def computed(self) -> list[tuple[str, str]]:
        """Process and key of every group that was computed."""
        return [
            (pid, key) for pid, key in (line.split() for line in self.log.read_text().splitlines() if len(line) > 32)
        ]

    def contents(self, url: str = "store") -> dict[bytes, list[float]]:
        """What a store serves, by key."""
        store = LogprobStore(self.folder / url, self.identity)
        keys = response_keys(GROUPS)
        keys = keys[store.find(keys) >= 0]
        return dict(zip(keys.tolist(), store.take(keys).column("logprobs").to_pylist(), strict=True))


@pytest.fixture
def runner(processes: ForkServerContext, tmp_path: Path, tiny: ModelRef) -> Runner:
    return Runner(processes, tmp_path, tiny)


@pytest.fixture
def whole(runner: Runner) -> dict[bytes, list[float]]:
    """What an uninterrupted process stores."""
    process = runner.start("whole")
    process.join()
    assert process.exitcode == 0
    assert len(runner.computed()) == len(GROUPS)
    runner.log.write_text("")
    values = runner.contents("whole")
    assert len(values) == 2 * len(GROUPS)
    return values


@pytest.mark.slow
def test_a_kill_at_each_write_point_serves_nothing_wrong_and_costs_what_was_not_stored(
    runner: Runner, whole: dict[bytes, list[float]]
) -> None:
    """One store, filled by processes each of which dies at another point; each begins with what the others left."""
    for point in (*WRITE_POINTS, None):
        stored = runner.contents()
        before = len(runner.computed())
        process = runner.start(death=point)
        process.join()
        assert process.exitcode == (0 if point is None else -signal.SIGKILL), f"not killed at {point}"
        served = runner.contents()
        assert served == {key: whole[key] for key in served}, f"killed at {point}"
        assert served.keys() >= stored.keys(), f"the kill at {point} lost stored rows"
        computed = [key for _, key in runner.computed()[before:]]
        assert len(set(computed)) == len(computed), "a row was computed twice"
        assert not {bytes.fromhex(key) for key in computed} & stored.keys(), "a stored row was computed again"
        lost = [key for key in computed if bytes.fromhex(key) not in served]
        assert len(lost) <= SHARD_GROUPS, f"the kill at {point} lost more than the shard that was being computed"
    assert runner.contents() == whole


@pytest.mark.nightly
def test_twenty_kills_at_random_points(runner: Runner, whole: dict[bytes, list[float]]) -> None:
    rng = random.Random(0)
    kills = 0
    while kills < KILLS:
        process = runner.start()
        before = len(runner.computed())
        until = rng.randint(1, SHARD_GROUPS)  # within any part of a shard, its writing included
        while len(runner.computed()) < before + until and process.is_alive():
            time.sleep(0.001)
        if not process.is_alive():
            break  # everything was stored before twenty kills
        time.sleep(rng.random() * 0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    last = runner.start()
    last.join()
    assert last.exitcode == 0
    assert kills == KILLS
    computed = [key for _, key in runner.computed()]
    assert set(computed) == {response_key(prompt, responses[0]).hex() for prompt, responses in GROUPS}
    assert len(computed) - len(set(computed)) <= KILLS * SHARD_GROUPS
    per_process: dict[str, list[str]] = {}
    for pid, key in runner.computed():
        per_process.setdefault(pid, []).append(key)
    for pid, keys in per_process.items():
        others = {key for other, theirs in per_process.items() if other != pid for key in theirs}
        assert len(others & set(keys)) <= 2 * SHARD_GROUPS, "a kill lost more than the shard that was being computed"
    assert runner.contents() == whole


@pytest.mark.slow
def test_two_processes_at_once_share_the_work(runner: Runner, whole: dict[bytes, list[float]]) -> None:
    both = [runner.start(), runner.start()]
    for process in both:
        process.join()
        assert process.exitcode == 0
    computed = runner.computed()
    assert len({key for _, key in computed}) == len(computed) == len(GROUPS), "a row was computed twice, or not at all"
    assert len({pid for pid, _ in computed}) == 2
    assert runner.contents() == whole


@pytest.mark.slow
def test_a_survivor_takes_over_what_a_killed_process_had_leased(
    runner: Runner, whole: dict[bytes, list[float]]
) -> None:
    doomed = runner.start()
    while len(runner.computed()) < SHARD_GROUPS + 5:
        time.sleep(0.001)
    survivor = runner.start()
    time.sleep(0.3)
    assert doomed.pid is not None
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.join()
    survivor.join(timeout=120)
    assert survivor.exitcode == 0
    assert runner.contents() == whole
