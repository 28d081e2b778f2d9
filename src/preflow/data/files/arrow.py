"""Rows of Arrow files, as ``datasets`` saves them: a stream of record batches, or a file of them."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from preflow.data.files.parquet import batch_rows
from preflow.data.files.raw_rows import RawRow

#: First bytes of Arrow's format for files; a stream has none of its own.
_FILE_MAGIC = b"ARROW1"


def read_arrow(path: Path, compression: str | None, name: str) -> Iterator[RawRow]:
    """The rows of an Arrow file, a batch at a time; ``compression`` is of no use, since columns are compressed."""
    number = 0
    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(source))
        for batch in batches:
            for values in batch_rows(batch):
                number += 1
                yield RawRow(name, number, values)
