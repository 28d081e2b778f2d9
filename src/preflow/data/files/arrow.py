"""Rows of Arrow files, as ``datasets`` saves them: a stream of record batches, or a file of them."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from preflow.data.files.parquet import batch_rows
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.text_files import MOST_UNPACKED
from preflow.errors import DataFileError

#: First bytes of Arrow's format for files; a stream has none of its own.
_FILE_MAGIC = b"ARROW1"
#: Rows that are Python values at a time: a value of a dictionary may be the value of each.
_ROWS = 64


def read_arrow(path: Path, compression: str | None, name: str, memory: int) -> Iterator[RawRow]:
    """The rows of an Arrow file, a batch at a time; ``compression`` is of no use, since columns are compressed.

    Raises:
        DataFileError: A batch of a small file unpacks to more than the memory.
    """
    number = 0
    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(source))
        packed = path.stat().st_size
        for batch in batches:
            _require_whole(batch)
            if batch.nbytes > max(memory, MOST_UNPACKED * packed):
                raise DataFileError(
                    f"{path} unpacks to {batch.nbytes:,} bytes in one batch, more than {memory >> 20:,} MiB "
                    f"(validation.memory_mb) and {MOST_UNPACKED} times the file; write smaller batches if it is right"
                )
            for start in range(0, batch.num_rows, _ROWS):
                for values in batch_rows(batch.slice(start, _ROWS)):
                    number += 1
                    yield RawRow(name, number, values)


def _require_whole(batch: pa.RecordBatch) -> None:
    """Check that offsets, which a damaged file may have anywhere, stay within the batch.

    Values of a type without offsets are not looked at: a day or an hour that is none is a value like any other.

    Raises:
        pa.ArrowInvalid: They do not.
    """
    batch.validate()
    for column in batch.columns:
        if _has_offsets(column.type):
            column.validate(full=True)


def _has_offsets(kind: pa.DataType) -> bool:
    if kind.num_fields:
        return True
    of_values = (pa.types.is_primitive, pa.types.is_null, pa.types.is_fixed_size_binary, pa.types.is_boolean)
    return not any(is_so(kind) for is_so in of_values)
