"""Computing what is missing in a log-prob store: shard by shard, beside other processes, each response once."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from preflow.distributed import Ranks
from preflow.errors import ModelError
from preflow.logprobs.key_index import Keys
from preflow.logprobs.leases import FileLeases, Leases, NoLeases
from preflow.logprobs.shards import KEY_BYTES
from preflow.logprobs.store import LogprobStore, response_keys
from preflow.logprobs.work_items import WorkItem, missing_work
from preflow.models.packed.layout import PromptResponses
from preflow.models.scoring import BATCH_TOKENS, Scorer, packed_length
from preflow.observer import Observer

#: Pairs that are computed and written together, and lost together when the process is killed.
SHARD_GROUPS = 64
#: Nats by which rounding may raise the log-prob of a certain token above 0: float32's step at a score of 1000.
_ROUNDING = 1e-3


@dataclass(slots=True)
class FillStats:
    """What one call of ``fill`` found and did. Rows are groups: a prompt with its requested responses.

    Attributes:
        asked: Rows requested.
        hit: Rows that were stored completely when the call began.
        repeated: Rows that were not, and whose missing responses an earlier row of the same call requests too.
        computed: Rows whose first missing response this process computed; other processes computed the rest.
        responses: Responses that this process computed.
        tokens: Tokens that it ran through the model.
        seconds: Wall time of computing, without loading the model.
        seconds_saved: Time that computing the stored responses had taken.
    """

    asked: int = 0
    hit: int = 0
    repeated: int = 0
    computed: int = 0
    responses: int = 0
    tokens: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0

    @classmethod
    def together(cls, parts: Sequence["FillStats"]) -> Self:
        """The statistics of a distributed run, whose ranks all request the same rows."""
        first = min(parts, key=lambda stats: stats.hit)  # it read the store before the others stored anything
        return cls(
            asked=first.asked,
            hit=first.hit,
            repeated=first.repeated,
            computed=sum(stats.computed for stats in parts),
            responses=sum(stats.responses for stats in parts),
            tokens=sum(stats.tokens for stats in parts),
            seconds=max(stats.seconds for stats in parts),
            seconds_saved=min(stats.seconds_saved for stats in parts),
        )

    def metrics(self) -> dict[str, float]:
        """Flat numbers for tracking."""
        values = {
            "rows_asked": self.asked,
            "rows_hit": self.hit,
            "rows_repeated": self.repeated,
            "rows_computed": self.computed,
            "responses_computed": self.responses,
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved,
        }
        if self.seconds > 0:
            values["tokens_per_second"] = self.tokens / self.seconds
        return {name: float(value) for name, value in values.items()}


def fill(
    store: LogprobStore,
    groups: Sequence[PromptResponses],
    load: Callable[[], Scorer],
    observer: Observer,
    what: str,
    *,
    keys: Keys | None = None,
    by_length: bool = False,
    ranks: Ranks | None = None,
) -> FillStats:
    """Compute what is missing, together with other processes that fill the store, and return when all is stored.

    Args:
        store: Where values are looked up and written.
        groups: Prompts with the responses whose values are wanted.
        load: Gives the scorer; called only if something is left to compute, since loading a model is expensive.
        observer: Receives progress.
        what: What is computed, for the progress line.
        keys: ``response_keys`` of the groups, where they are known already.
        by_length: For devices that score many rows at once: longest rows first, so that neighbours are of similar
            length, and as many responses of a prompt together as a packed batch takes.
        ranks: The ranks of a distributed run, each of which begins with its own rows; none for a single process.

    Raises:
        ModelError: A file of the model was changed meanwhile, or a value is not a log-prob.
    """
    ranks = ranks or Ranks()
    keys = response_keys(groups) if keys is None else keys
    found = store.find(keys)
    lacking, repeated = missing_work(groups, keys, found)
    hit = len(groups) - repeated - sum(sum(work.firsts) for work in lacking)
    stats = FillStats(len(groups), hit, repeated, seconds_saved=store.seconds(found[found >= 0]))
    todo = [piece for work in lacking for piece in work.pieces(BATCH_TOKENS if by_length else None)]
    if by_length:
        todo.sort(key=lambda work: -packed_length(work.group))
    mine = [work for work in todo if ranks.owns(work.keys[0])]
    filling = _Filling(store, load, observer, what, stats)
    filling.run(mine)
    if store.leases_folder is None:
        ranks.barrier()  # without leases, so that only what another rank failed to finish is left
    filling.run([work for work in todo if not ranks.owns(work.keys[0])])
    return stats


class _Filling:
    """Computes rows shard by shard, except those that other processes are computing."""

    def __init__(
        self, store: LogprobStore, load: Callable[[], Scorer], observer: Observer, what: str, stats: FillStats
    ) -> None:
        self._store, self._load, self._observer, self._what, self._stats = store, load, observer, what, stats
        self._scorer: Scorer | None = None
        self._done = 0

    def run(self, todo: list[WorkItem]) -> None:
        """Return when every row of ``todo`` is stored, by this process or another."""
        folder = self._store.leases_folder
        leases: Leases = NoLeases() if folder is None or not todo else FileLeases(folder)
        while todo:
            choice = _Choice(self._store, todo)
            with leases.take(choice):
                todo = choice.left
                if choice.shard:
                    self._compute(choice.shard, waiting=len(todo))
            if not choice.shard:
                leases.wait()

    def _compute(self, shard: list[WorkItem], waiting: int) -> None:
        if self._scorer is None:
            self._scorer = self._load()
        total = self._done + len(shard) + waiting
        begin = time.monotonic()
        values: list[list[float]] = []
        for work, scored in zip(shard, self._scorer([work.group for work in shard]), strict=True):
            new = [response.tolist() for response in scored]
            self._require_logprobs(work, new)
            values += new
            self._done += 1
            self._observer.progress(self._done, total, self._what)
            self._stats.computed += sum(work.firsts)
        seconds = time.monotonic() - begin
        self._store.reference.require_unchanged()
        self._store.add(shard_columns(shard, values, seconds))
        self._stats.responses += len(values)
        self._stats.tokens += sum(packed_length(work.group) + 1 for work in shard)
        self._stats.seconds += seconds

    def _require_logprobs(self, work: WorkItem, values: list[list[float]]) -> None:
        """Raise if a value cannot be a log-prob: once stored, it would be served to every run.

        Raises:
            ModelError: Names the response.
        """
        prompt, responses = work.group
        for response, row in zip(responses, values, strict=True):
            for place, value in enumerate(row):
                if not (math.isfinite(value) and value <= _ROUNDING):
                    raise ModelError(
                        f"{self._store.reference.label} gives {value} as log-prob of token {response[place]} (token "
                        f"{place + 1} of a response of {len(response)}, to the prompt of {len(prompt)} tokens that "
                        f"ends in {list(prompt[-8:])}): expected a finite number of at most 0. Check the model for "
                        "NaN or infinite weights; nothing of this shard was stored"
                    )


class _Choice:
    """Chooses the next shard: rows that are neither stored nor leased. Leased rows are tried again later."""

    def __init__(self, store: LogprobStore, todo: list[WorkItem]) -> None:
        self._store, self._todo = store, todo
        self.shard: list[WorkItem] = []
        self.left: list[WorkItem] = []

    def __call__(self, leased: set[bytes]) -> list[bytes]:
        """Fill the shard and give its keys."""
        self._store.refresh()
        later: list[WorkItem] = []
        place = pairs = 0
        while place < len(self._todo) and pairs < SHARD_GROUPS:
            work = self._unstored(self._todo[place])
            if not leased.isdisjoint(work.keys):
                later.append(work)
            elif work.keys:
                if self.shard and pairs + work.pairs > SHARD_GROUPS:
                    break
                self.shard.append(work)
                pairs += work.pairs
            place += 1
        self.left = [*self._todo[place:], *later]
        return [key for work in self.shard for key in work.keys]

    def _unstored(self, work: WorkItem) -> WorkItem:
        """The part of a work item that is not stored yet."""
        absent = self._store.find(np.array(work.keys, dtype=f"S{KEY_BYTES}")) < 0
        if absent.all():
            return work
        return work.part(np.flatnonzero(absent).tolist())


def shard_columns(shard: Sequence[WorkItem], values: list[list[float]], seconds: float) -> dict[str, list[Any]]:
    """One shard's rows by column; the time is divided in proportion to tokens."""
    lengths = [len(work.group[0]) + len(response) for work in shard for response in work.group[1]]
    return {
        "key": [key for work in shard for key in work.keys],
        "total": [sum(row) for row in values],
        "tokens": [len(row) for row in values],
        "logprobs": values,
        "seconds": [seconds * length / sum(lengths) for length in lengths],
        "created": [int(time.time())] * len(values),
    }
