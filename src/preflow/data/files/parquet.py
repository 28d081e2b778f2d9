"""Rows of Parquet files as Python values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from preflow.data.files.raw_rows import RawRow
from preflow.data.files.text_files import MOST_UNPACKED
from preflow.errors import DataFileError

#: Most and fewest rows of a batch.
_BATCH, _SMALL = 1024, 8
#: Bytes of a column's part that may be one cell.
_SMALL_PART = 1 << 20


def read_parquet(path: Path, compression: str | None, name: str, memory: int) -> Iterator[RawRow]:
    """The rows of a Parquet file, a batch at a time; ``compression`` is of no use, since columns are compressed.

    Raises:
        DataFileError: A row group of a small file unpacks to more than the memory.
    """
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_rows_at_once(path, table, memory)):
            for values in batch_rows(batch):
                number += 1
                yield RawRow(name, number, values)


def _rows_at_once(path: Path, table: Any, memory: int) -> int:
    """Rows of a batch that fit into an eighth of the memory even where every cell is the largest of its column."""
    largest = 1
    for place in range(table.metadata.num_row_groups):
        group = table.metadata.row_group(place)
        _require_bounded(path, place, path.stat().st_size, group.total_byte_size, memory)
        # Reading a row raises where what is said of a column is damaged; to ask for it would end the process.
        next(table.iter_batches(batch_size=1, row_groups=[place]), None)
        columns = [group.column(number) for number in range(group.num_columns)]
        packed, unpacked = (
            sum(getattr(c, f"total_{kind}_size") for c in columns) for kind in ("compressed", "uncompressed")
        )
        _require_bounded(path, place, packed, unpacked, memory)
        largest = max(largest, sum(map(_largest_cell, columns)))
    return min(_BATCH, max(1 if largest > memory // 64 else _SMALL, memory // 8 // largest))


def _require_bounded(path: Path, place: int, packed: int, unpacked: int, memory: int) -> None:
    if unpacked > max(memory, MOST_UNPACKED * packed):
        raise DataFileError(
            f"{path}: row group {place} unpacks {packed:,} bytes to {unpacked:,}, more than {memory >> 20:,} MiB "
            "(validation.memory_mb), as no rows do; write it again in smaller row groups if it is right"
        )


def _largest_cell(column: Any) -> int:
    """About the bytes of the largest cell of a column's part; one of a dictionary may be that of every row."""
    packed, unpacked = max(column.total_compressed_size, 1), column.total_uncompressed_size
    if not column.has_dictionary_page or column.dictionary_page_offset is None:
        return int(min(unpacked, 64 * unpacked // max(column.num_values, 1) + 1))
    if unpacked <= _SMALL_PART:
        return int(unpacked)
    dictionary = max(column.data_page_offset - column.dictionary_page_offset, 0)
    return int(min(unpacked, 4 * dictionary * max(1.0, unpacked / packed)))


def batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch; a time that Python cannot represent is given as the file's number."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ArithmeticError, LookupError, ValueError):  # years beyond 9999, unknown time zones
        columns = [_column(column) for column in batch.columns]
        return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]
    return rows


def _column(column: pa.Array) -> list[Any]:
    try:
        found: list[Any] = column.to_pylist()
    except (ArithmeticError, LookupError, ValueError):
        if not pa.types.is_temporal(column.type):
            raise  # inside a list or a struct: data_file_errors() reports it
        found = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()
    return found
