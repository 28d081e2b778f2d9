"""Rows of Parquet files as Python values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from preflow.data.files.raw_rows import RawRow

_BATCH = 4096


def read_parquet(path: Path, compression: str | None, name: str) -> Iterator[RawRow]:
    """The rows of a Parquet file, a batch at a time; ``compression`` is of no use, since columns are compressed."""
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_BATCH):
            for values in batch_rows(batch):
                number += 1
                yield RawRow(name, number, values)


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
