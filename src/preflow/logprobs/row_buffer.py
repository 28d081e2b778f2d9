"""Cache entries of a log-prob store in memory, in pieces as they were read; they are never all copied at once."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preflow.logprobs.shards import SHARD_SCHEMA, SMALL_ROWS

#: Columns that are looked up. The key is in the index; only the command needs the time of computation.
COLUMNS = ("total", "tokens", "logprobs", "seconds")
#: So many consecutive small pieces become one: taking rows has a cost per piece.
_SMALL_PIECES = 64


class RowBuffer:
    """Rows, numbered in the order in which they came."""

    def __init__(self) -> None:
        self._pieces: list[pa.Table] = []

    def append(self, table: pa.Table) -> None:
        """Add the rows of one shard."""
        self._pieces.append(table.select(COLUMNS).combine_chunks())
        last = self._pieces[-_SMALL_PIECES:]
        if len(last) == _SMALL_PIECES and all(len(piece) < SMALL_ROWS for piece in last):
            self._pieces[-_SMALL_PIECES:] = [pa.concat_tables(last).combine_chunks()]

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Some rows by number, in the order given; needs memory of twice their size."""
        parts, places = [SHARD_SCHEMA.empty_table().select(COLUMNS)], [np.empty(0, np.int64)]
        for piece, numbers, wanted in self._by_piece(rows):
            parts.append(piece.take(pa.array(numbers)))
            places.append(wanted)
        table, order = pa.concat_tables(parts).combine_chunks(), np.empty(len(rows), np.int64)
        order[np.concatenate(places)] = np.arange(len(rows))
        return table.take(pa.array(order))

    def seconds(self, rows: NDArray[np.int64]) -> float:
        """Seconds that computing some rows took, each row counted once."""
        total = 0.0
        for piece, numbers, _ in self._by_piece(rows):
            total += float(piece.column("seconds").to_numpy()[np.unique(numbers)].sum(dtype=np.float64))
        return total

    def _by_piece(self, rows: NDArray[np.int64]) -> list[tuple[pa.Table, NDArray[np.int64], NDArray[np.int64]]]:
        """For each piece with requested rows: their numbers in it, and their positions in the request."""
        starts = np.cumsum([0, *(len(piece) for piece in self._pieces)])
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], starts)
        wanted = [(i, order[cuts[i] : cuts[i + 1]]) for i in range(len(self._pieces)) if cuts[i] < cuts[i + 1]]
        return [(self._pieces[i], rows[places] - starts[i], places) for i, places in wanted]
