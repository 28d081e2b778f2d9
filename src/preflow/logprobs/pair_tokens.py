"""Tokenized pairs in columns: millions of them need the memory of their token ids, not of as many Python objects."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Self, overload

import numpy as np
import pyarrow as pa

from preflow.data.tokens.tokenize import TokenizedPair
from preflow.logprobs.key_index import Keys
from preflow.logprobs.scored_pairs import BLOCK, SCORED_PAIRS_SCHEMA
from preflow.logprobs.shards import KEY_BYTES
from preflow.logprobs.store import LogprobStore, prompt_hash
from preflow.models.packed.layout import PromptResponses

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
_COLUMNS = pa.schema([SCORED_PAIRS_SCHEMA.field(name) for name in (*_IDS, "source", "id")])


class PairTokens(Sequence[PromptResponses]):
    """Prompts, each with its chosen and its rejected response, as they are requested from the store."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap a table with the columns of token ids, ``source`` and ``id``."""
        self.table = table

    @classmethod
    def of(cls, pairs: Iterable[TokenizedPair]) -> Self:
        """The same pairs in columns."""
        rows = [
            {**{name: getattr(pair, name) for name in _IDS}, "source": str(pair.source), "id": pair.id}
            for pair in pairs
        ]
        return cls(pa.Table.from_pylist(rows, schema=_COLUMNS))

    @classmethod
    def joined(cls, parts: Iterable["PairTokens"]) -> Self:
        """Some tables as one; nothing is copied."""
        return cls(pa.concat_tables([cls.of([]).table, *(part.table for part in parts)]))

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> PromptResponses: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> PromptResponses | Self:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"got a slice with step {step}, expected neighbours (step 1)")
            return type(self)(self.table.slice(start, max(0, stop - start)))
        row = range(len(self))[index]
        return next(iter(self[row : row + 1]))

    def __iter__(self) -> Iterator[PromptResponses]:
        for batch in self.table.select(_IDS).to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])

    @cached_property
    def keys(self) -> Keys:
        """The key of every response: chosen, rejected, chosen, rejected, ..."""
        found = bytearray()
        for block in self.blocks():
            for key in _keys(block.table):
                found += key
        return np.frombuffer(found, dtype=f"S{KEY_BYTES}")

    def blocks(self) -> Iterator[Self]:
        """The pairs in blocks of neighbours."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    def scored(self, store: LogprobStore) -> Iterator[pa.Table]:
        """The pairs with their stored values, block by block, with the columns of ``scored_pairs.SCORED_PAIRS_SCHEMA``.

        Raises:
            KeyError: One is not stored.
        """
        for number, block in enumerate(self.blocks()):
            first = 2 * number * BLOCK
            values = store.take(self.keys[first : first + 2 * len(block)]).column("logprobs")
            table = block.table
            for place, side in enumerate(("chosen", "rejected")):
                table = table.append_column(f"ref_{side}", values.take(pa.array(np.arange(place, len(values), 2))))
            yield table.select(SCORED_PAIRS_SCHEMA.names).combine_chunks()


def _keys(table: pa.Table) -> Iterator[bytes]:
    """The keys of a table's responses, from the bytes of its columns."""
    prompts, chosen, rejected = (_rows(table.column(name)) for name in _IDS)
    for prompt, one, other in zip(prompts, chosen, rejected, strict=True):
        key = prompt_hash(prompt)
        yield key(one)
        yield key(other)


def _rows(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """The bytes of each row of a column of lists of 32-bit numbers, least significant byte first."""
    for chunk in column.chunks:
        numbers = np.ascontiguousarray(chunk.values.to_numpy(), dtype="<i4").data.cast("B")
        for start, stop in pairwise((4 * chunk.offsets.to_numpy().astype(np.int64)).tolist()):
            yield numbers[start:stop]
