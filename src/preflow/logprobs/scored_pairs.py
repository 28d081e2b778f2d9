"""Scored pairs: token ids and reference log-probs in one table, so that what is scored is what is trained on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preflow.errors import ArtifactError
from preflow.logprobs.arrow_memory import exact_memory
from preflow.models.packed.layout import PromptResponses
from preflow.models.scoring import PromptResponse


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One pair as the model sees it, with the reference's per-token log-probs.

    Attributes:
        prompt_ids: P token ids.
        chosen_ids: C token ids of the better response, its end-of-turn token included.
        rejected_ids: R token ids of the other one.
        ref_chosen: C log-probs in nats under the reference.
        ref_rejected: R log-probs in nats under the reference.
        source: File and row that the pair came from.
        id: Its content id (``data.rows.Pair.id``).
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    ref_chosen: list[float]
    ref_rejected: list[float]
    source: str
    id: str = ""

    @property
    def chosen(self) -> PromptResponse:
        """Prompt and better response."""
        return self.prompt_ids, self.chosen_ids

    @property
    def rejected(self) -> PromptResponse:
        """Prompt and other response."""
        return self.prompt_ids, self.rejected_ids

    @property
    def group(self) -> PromptResponses:
        """Prompt with both responses, as they are scored together."""
        return self.prompt_ids, (self.chosen_ids, self.rejected_ids)


SCORED_PAIRS_SCHEMA = pa.schema(
    [(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    + [(name, pa.list_(pa.float32())) for name in ("ref_chosen", "ref_rejected")]
    + [("source", pa.string()), ("id", pa.string())]
)
_RESPONSES = ("chosen", "rejected")
#: Pairs that are written, and read, at once.
BLOCK = 8192
#: Rows whose values are held in float64 at once.
_SUM_ROWS = 32_768


class PairTable(Sequence[ScoredPair]):
    """Scored pairs in columns: a pair becomes Python objects only when it is read."""

    def __init__(self, table: pa.Table) -> None:
        """Wrap a table with the columns of a scored pair."""
        self.table = table.cast(SCORED_PAIRS_SCHEMA)

    @classmethod
    def of(cls, pairs: Sequence[ScoredPair]) -> Self:
        """The same pairs in columns."""
        if isinstance(pairs, cls):
            return pairs
        rows = [{name: getattr(pair, name) for name in SCORED_PAIRS_SCHEMA.names} for pair in pairs]
        return cls(pa.Table.from_pylist(rows, schema=SCORED_PAIRS_SCHEMA))

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> ScoredPair: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> ScoredPair | Self:
        if isinstance(index, slice):
            return type(self)(self.table.take(pa.array(range(len(self))[index], pa.int64())))
        row = range(len(self))[index]
        return ScoredPair(**self.table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[ScoredPair]:
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from (ScoredPair(**row) for row in batch.to_pylist())

    def lengths(self, name: str) -> NDArray[np.int64]:
        """How many entries a column has in each row, shape ``(N,)``."""
        return np.asarray(pc.list_value_length(self.table.column(name)).to_numpy(), dtype=np.int64)

    def reference_scores(self, ld_alpha: float | None = None) -> dict[str, NDArray[np.float64]]:
        """The reference's log-prob of every chosen and every rejected response, summed in float64.

        Args:
            ld_alpha: Weight of the tokens beyond the shorter response (LD-DPO, arXiv:2409.06411, eq. 8); none: 1.

        Returns:
            ``chosen`` and ``rejected`` with N scores each, in nats.
        """
        shared = np.minimum(self.lengths("chosen_ids"), self.lengths("rejected_ids"))
        alpha = 1.0 if ld_alpha is None else ld_alpha
        return {side: _weighted_sums(self.table.column(f"ref_{side}"), shared, alpha) for side in _RESPONSES}

    def training_columns(self, ld_alpha: float | None = None) -> pa.Table:
        """The columns that TRL's collator reads, token ids without a copy, and the sums."""
        scores = self.reference_scores(ld_alpha)
        table = self.table.select(["prompt_ids", "chosen_ids", "rejected_ids"])
        for side in _RESPONSES:
            table = table.append_column(f"ref_{side}_logps", pa.array(scores[side]))
        return table


def _weighted_sums(column: pa.ChunkedArray, shared: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    """Per row: the sum of its first ``shared`` values plus ``alpha`` times the sum of the others, in float64."""
    sums = np.empty(len(column), dtype=np.float64)
    done = 0
    for start in range(0, len(column), _SUM_ROWS):
        chunk = pa.concat_arrays(column.slice(start, _SUM_ROWS).chunks)
        lengths = pc.list_value_length(chunk).to_numpy().astype(np.int64)
        values = chunk.flatten().to_numpy().astype(np.float64)
        starts = np.cumsum(lengths) - lengths
        if alpha != 1.0:
            place = np.arange(len(values)) - np.repeat(starts, lengths)
            values[place >= np.repeat(shared[done : done + len(chunk)], lengths)] *= alpha
        if len(lengths) and lengths.min() == 0:
            raise ArtifactError(f"row {done + int(lengths.argmin())} has a response of 0 tokens: expected at least 1")
        sums[done : done + len(chunk)] = np.add.reduceat(values, starts)
        done += len(chunk)
    return sums


def write_blocks(path: Path, blocks: Iterable[pa.Table]) -> None:
    """Write tables with the columns of ``SCORED_PAIRS_SCHEMA`` one after the other; only one is in memory at a time."""
    with pq.ParquetWriter(path, SCORED_PAIRS_SCHEMA, use_dictionary=False) as writer:
        for block in blocks:
            writer.write_table(block)


def read_pairs(path: Path) -> PairTable:
    """Read what ``write_blocks`` wrote; needs memory for the values and for one block."""
    with exact_memory(), pq.ParquetFile(path) as file:
        blocks = [file.read_row_group(number) for number in range(file.num_row_groups)]
    return PairTable(pa.concat_tables([SCORED_PAIRS_SCHEMA.empty_table(), *blocks]))
