"""The rows of one source as its file holds them, one after the other, without holding the file in memory.

Nothing is judged here. A line that cannot be parsed becomes a malformed row with its number, because data
validation decides about one bad line among a million; a file that cannot be read at all is an error that names it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from preflow.data.files.arrow import read_arrow
from preflow.data.files.csv_table import read_csv
from preflow.data.files.hub_datasets import is_hub, read_hub
from preflow.data.files.json_array import read_json
from preflow.data.files.jsonl import read_jsonl
from preflow.data.files.parquet import read_parquet
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.sources import DataSource
from preflow.data.files.text_files import data_file_errors
from preflow.errors import DataFileError
from preflow.formats import FormatName, file_format

#: File, compression and name of the source to its rows.
Reader = Callable[[Path, str | None, str], Iterator[RawRow]]


def read_rows(source: DataSource, name: str | None = None) -> Iterator[RawRow]:
    """Yield the rows of one source in the order of the file.

    Args:
        source: As ``resolve_sources`` returned it.
        name: What to call the source in findings; the file's own name where not given.

    Raises:
        DataFileError: The file cannot be read or is not of the format that its name says; names file and line.
    """
    if is_hub(source.path):
        yield from read_hub(source.path, name or source.path.rpartition("@")[0])
        return
    path = Path(source.path)
    label = name or path.name
    form = file_format(path)
    if form is None:
        raise DataFileError(f"{path} is of no known data format")
    with data_file_errors(path, form[1]) as after:
        for row in _reader(form[0])(path, form[1], label):
            after[0] = row.row
            yield row


def _reader(form: FormatName) -> Reader:
    """The reader of a format; the type checker refuses a format without one."""
    match form:
        case "jsonl":
            return read_jsonl
        case "json":
            return read_json
        case "csv":
            return read_csv
        case "tsv":
            return partial(read_csv, delimiter="\t")
        case "parquet":
            return read_parquet
        case "arrow":
            return read_arrow
