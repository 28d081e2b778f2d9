"""Computing what a log-prob store lacks: shard by shard, beside other processes, each response once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from preflow.models.scoring import Group, Scorer, packed_length
from preflow.observer import Observer
from preflow.stages.claims import Claims, LockedClaims, NoClaims
from preflow.stages.key_index import Keys, exact
from preflow.stages.logprob_store import LogprobStore, row_keys
from preflow.stages.ranks import Ranks
from preflow.stages.shards import KEY_BYTES

#: Prompts whose responses are computed and written together: what a kill can lose.
SHARD_GROUPS = 64


@dataclass(slots=True)
class Tally:
    """What one call of ``fill`` found and did. Rows are groups: a prompt with the responses asked for it.

    Attributes:
        asked: Rows asked for.
        computed: Rows of which this process computed at least one response.
        responses: Responses that this process computed.
        tokens: Tokens that it ran through the model.
        seconds: Wall time of computing, without loading the model.
        seconds_saved: What the responses that were stored already took when they were computed.
    """

    asked: int = 0
    computed: int = 0
    responses: int = 0
    tokens: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0

    @classmethod
    def together(cls, tallies: Sequence["Tally"]) -> Self:
        """What the processes of one launch did, who all were asked for the same rows."""
        return cls(
            asked=tallies[0].asked,
            computed=sum(tally.computed for tally in tallies),
            responses=sum(tally.responses for tally in tallies),
            tokens=sum(tally.tokens for tally in tallies),
            seconds=max(tally.seconds for tally in tallies),
            seconds_saved=min(tally.seconds_saved for tally in tallies),  # of whoever looked first
        )

    def metrics(self) -> dict[str, float]:
        """Flat numbers for tracking."""
        values = {
            "rows_asked": self.asked,
            "rows_hit": self.asked - self.computed,
            "rows_computed": self.computed,
            "responses_computed": self.responses,
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved,
        }
        if self.seconds > 0:
            values["tokens_per_second"] = self.tokens / self.seconds
        return {name: float(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Work:
    """A prompt with the responses that are missing.

    Attributes:
        group: Prompt and responses.
        keys: The key of each response.
        rows: How many of the groups asked for wait for it.
    """

    group: Group
    keys: list[bytes]
    rows: int


def fill(
    store: LogprobStore,
    groups: Sequence[Group],
    load: Callable[[], Scorer],
    observer: Observer,
    what: str,
    *,
    keys: Keys | None = None,
    by_length: bool = False,
    ranks: Ranks | None = None,
) -> Tally:
    """Compute what is missing, together with whoever else is at it, and return when all of it is stored.

    Args:
        store: Where values are looked up and written.
        groups: Prompts with the responses whose values are wanted.
        load: Gives the scorer; called only if something is left to compute, since loading a model is dear.
        observer: Hears progress.
        what: What is computed, for the progress line.
        keys: ``row_keys`` of the groups, where they are known already.
        by_length: Take the longest first, so that neighbours are of similar length.
        ranks: The processes of one launch, who begin with a share each; none for this process alone.

    Raises:
        ModelError: A file of the model was changed meanwhile.
    """
    ranks = ranks or Ranks()
    keys = row_keys(groups) if keys is None else keys
    found = store.find(keys)
    tally = Tally(asked=len(groups), seconds_saved=store.seconds(found[found >= 0]))
    todo = missing(groups, keys, found)
    if by_length:
        todo.sort(key=lambda work: -packed_length(work.group))
    mine = [work for work in todo if ranks.owns(work.keys[0])]
    filling = _Filling(store, load, observer, what, tally)
    filling.run(mine)
    if store.claims_folder is None:
        ranks.meet()  # nothing is claimed there, so only what a rank could not finish may be left
    filling.run([work for work in todo if not ranks.owns(work.keys[0])])
    return tally


def missing(groups: Sequence[Group], keys: Keys, found: NDArray[np.int64]) -> list[Work]:
    """What is missing, prompt by prompt, each response once.

    Args:
        groups: What is asked for.
        keys: The key of every response of every group.
        found: Negative where the key is not stored.
    """
    if (found >= 0).all():  # no need to look at every group
        return []
    wanted: dict[tuple[int, ...], dict[bytes, Sequence[int]]] = {}
    rows: dict[tuple[int, ...], int] = {}
    known: set[bytes] = set()
    place = 0
    for prompt, responses in groups:
        places = range(place, place + len(responses))
        place += len(responses)
        absent = {exact(keys[i]): r for i, r in zip(places, responses, strict=True) if found[i] < 0}
        new = {key: response for key, response in absent.items() if key not in known}
        if new:
            known.update(new)
            wanted.setdefault(tuple(prompt), {}).update(new)
            rows[tuple(prompt)] = rows.get(tuple(prompt), 0) + 1
    return [Work((prompt, list(new.values())), list(new), rows[prompt]) for prompt, new in wanted.items()]


class _Filling:
    """Computes rows shard by shard, leaving alone what others are computing."""

    def __init__(
        self, store: LogprobStore, load: Callable[[], Scorer], observer: Observer, what: str, tally: Tally
    ) -> None:
        self._store, self._load, self._observer, self._what, self._tally = store, load, observer, what, tally
        self._scorer: Scorer | None = None
        self._done = 0

    def run(self, todo: list[Work]) -> None:
        """Return when every row of ``todo`` is stored, by whomever."""
        folder = self._store.claims_folder
        claims: Claims = NoClaims() if folder is None or not todo else LockedClaims(folder)
        while todo:
            choice = _Choice(self._store, todo)
            with claims.take(choice):
                todo = choice.left
                if choice.shard:
                    self._compute(choice.shard, waiting=len(todo))
            if not choice.shard:
                claims.wait()

    def _compute(self, shard: list[Work], waiting: int) -> None:
        if self._scorer is None:
            self._scorer = self._load()
        total = self._done + len(shard) + waiting
        begin = time.monotonic()
        values: list[list[float]] = []
        for work, scored in zip(shard, self._scorer([work.group for work in shard]), strict=True):
            values += [response.tolist() for response in scored]
            self._done += 1
            self._observer.progress(self._done, total, self._what)
            self._tally.computed += work.rows
        seconds = time.monotonic() - begin
        self._store.reference.require_unchanged()
        self._store.add(_columns(shard, values, seconds))
        self._tally.responses += len(values)
        self._tally.tokens += sum(packed_length(work.group) + 1 for work in shard)
        self._tally.seconds += seconds


class _Choice:
    """Chooses the next shard: rows that are neither stored nor claimed. Rows that others claimed are left for later."""

    def __init__(self, store: LogprobStore, todo: list[Work]) -> None:
        self._store, self._todo = store, todo
        self.shard: list[Work] = []
        self.left: list[Work] = []

    def __call__(self, claimed: set[bytes]) -> list[bytes]:
        """Fill the shard and give its keys."""
        self._store.refresh()
        later: list[Work] = []
        place = 0
        while place < len(self._todo) and len(self.shard) < SHARD_GROUPS:
            work = self._unstored(self._todo[place])
            place += 1
            if work.keys:
                (self.shard if claimed.isdisjoint(work.keys) else later).append(work)
        self.left = [*self._todo[place:], *later]
        return [key for work in self.shard for key in work.keys]

    def _unstored(self, work: Work) -> Work:
        """The part of some work that nobody has stored yet."""
        absent = self._store.find(np.array(work.keys, dtype=f"S{KEY_BYTES}")) < 0
        if absent.all():
            return work
        prompt, responses = work.group
        left = [(r, key) for r, key, is_absent in zip(responses, work.keys, absent, strict=True) if is_absent]
        return Work((prompt, [r for r, _ in left]), [key for _, key in left], work.rows)


def _columns(shard: Sequence[Work], values: list[list[float]], seconds: float) -> dict[str, list[Any]]:
    """One shard's rows by column; the time is shared out by tokens."""
    lengths = [len(work.group[0]) + len(response) for work in shard for response in work.group[1]]
    return {
        "key": [key for work in shard for key in work.keys],
        "total": [sum(row) for row in values],
        "tokens": [len(row) for row in values],
        "logprobs": values,
        "seconds": [seconds * length / sum(lengths) for length in lengths],
        "created": [int(time.time())] * len(values),
    }
