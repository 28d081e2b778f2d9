"""A log-prob store's rows in memory, piece by piece as they were read: at no time all of them lie there twice."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preflow.logprobs.shards import SCHEMA, SMALL_ROWS

#: What is looked up of a row. Its key is in the index; when it was computed, only the tool asks.
COLUMNS = ("total", "tokens", "logprobs", "seconds")
#: So many small pieces in a row become one: taking rows costs a little for every piece.
_SMALL_PIECES = 64


class RowBuffer:
    """Rows, numbered in the order in which they came."""

    def __init__(self) -> None:
        self._pieces: list[pa.Table] = []

    def append(self, table: pa.Table) -> None:
        """Take in the rows of one shard."""
        self._pieces.append(table.select(COLUMNS).combine_chunks())
        last = self._pieces[-_SMALL_PIECES:]
        if len(last) == _SMALL_PIECES and all(len(piece) < SMALL_ROWS for piece in last):
            self._pieces[-_SMALL_PIECES:] = [pa.concat_tables(last).combine_chunks()]

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Some rows by number, in the order asked; takes twice their own size."""
        parts, places = [SCHEMA.empty_table().select(COLUMNS)], [np.empty(0, np.int64)]
        for piece, numbers, wanted in self._by_piece(rows):
            parts.append(piece.take(pa.array(numbers)))
            places.append(wanted)
        table, order = pa.concat_tables(parts).combine_chunks(), np.empty(len(rows), np.int64)
        order[np.concatenate(places)] = np.arange(len(rows))
        return table.take(pa.array(order))

    def seconds(self, rows: NDArray[np.int64]) -> float:
        """What the computation of some rows took, each counted once."""
        total = 0.0
        for piece, numbers, _ in self._by_piece(rows):
            total += float(piece.column("seconds").to_numpy()[np.unique(numbers)].sum(dtype=np.float64))
        return total

    def _by_piece(self, rows: NDArray[np.int64]) -> list[tuple[pa.Table, NDArray[np.int64], NDArray[np.int64]]]:
        """By piece that is concerned: the rows' numbers in it, and their places among the rows asked for."""
        starts = np.cumsum([0, *(len(piece) for piece in self._pieces)])
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], starts)
        wanted = [(i, order[cuts[i] : cuts[i + 1]]) for i in range(len(self._pieces)) if cuts[i] < cuts[i + 1]]
        return [(self._pieces[i], rows[places] - starts[i], places) for i, places in wanted]
