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
            batch.validate(full=True)  # offsets of a damaged file would be followed to anywhere in memory
            if batch.nbytes > max(memory, MOST_UNPACKED * packed):
                raise DataFileError(
                    f"{path} unpacks to {batch.nbytes:,} bytes in one batch, more than {memory >> 20:,} MiB "
                    f"(validation.memory_mb) and {MOST_UNPACKED} times the file; write smaller batches if it is right"
                )
            for start in range(0, batch.num_rows, _ROWS):
                for values in batch_rows(batch.slice(start, _ROWS)):
                    number += 1
                    yield RawRow(name, number, values)
