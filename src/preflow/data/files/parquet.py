"""Rows of Parquet batches as Python values."""

from typing import Any

import pyarrow as pa


def batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch; a time that Python cannot hold stands there as the number that the file holds."""
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
            raise  # inside a list or a struct: unreadable() says so
        found = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()
    return found
