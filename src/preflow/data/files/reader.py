"""The rows of one source as its file holds them, one after the other, without holding the file in memory.

Nothing is judged here. A line that cannot be parsed becomes a malformed row with its number, because data
validation decides about one bad line among a million; a file that cannot be read at all is an error that names it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from preflow.config.validation import did_you_mean
from preflow.data.files.arrow import read_arrow
from preflow.data.files.csv_table import read_csv
from preflow.data.files.hub_datasets import is_hub, read_hub
from preflow.data.files.json_array import read_json
from preflow.data.files.jsonl import from_quarantine, read_jsonl
from preflow.data.files.parquet import read_parquet
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.text_files import MEMORY, data_file_errors
from preflow.errors import DataFileError
from preflow.formats import FormatName, file_format

#: File, compression, name of the source and bytes of memory to its rows.
Reader = Callable[[Path, str | None, str, int], Iterator[RawRow]]


def read_rows(source: DataSource, name: str | None = None, memory: int = MEMORY) -> Iterator[RawRow]:
    """Yield the rows of one source in the order of the file, as many as the recipe wants.

    Args:
        source: As ``resolve_sources`` returned it.
        name: What to call the source in findings; the file's own name where not given.
        memory: Bytes of memory for rows; a line or value that is too long for it is a malformed row or an error.

    Raises:
        DataFileError: The file cannot be read or is not of the format that its name says; names file and line.
    """
    rows = islice(_rows(source, name, memory), source.rows)
    if source.reading is None:
        yield from rows
    else:
        yield from (replace(row, reading=source.reading) for row in rows)


def require_columns(sources: Iterable[DataSource], columns: Iterable[str]) -> None:
    """Check that columns that a recipe names are in a row of some source.

    Raises:
        DataFileError: One is in none; names the nearest column.
    """
    missing, seen, paths = dict.fromkeys(columns), dict[str, None](), []
    for source in sources:
        paths.append(source.path)
        for raw in map(from_quarantine, _rows(source, None)):
            if not missing:
                return
            seen.update(dict.fromkeys(() if raw.malformed is not None else raw.values))
            missing = {name: None for name in missing if not has_column(raw.values, name)}
    if missing and seen:
        name = next(iter(missing))
        raise DataFileError(f"no row of {', '.join(paths)} has the column '{name}': {did_you_mean(name, seen)}")


def has_column(values: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column, or the key inside a column that a name with dots gives."""
    return name in values or column_value(values, name) is not None


def column_value(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a key inside one (``meta.question``, ``turns.0.text``); null where there is none."""
    if name in values:
        return values[name]
    found: Any = values
    for part in name.split("."):
        if isinstance(found, list) and part.isdecimal():
            found = found[int(part)] if int(part) < len(found) else None
        else:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _rows(source: DataSource, name: str | None, memory: int = MEMORY) -> Iterator[RawRow]:
    if is_hub(source.path):
        label = name or source.path.rpartition("@")[0]
        yield from read_hub(source.path, label, [] if source.reading is None else source.reading.named_columns())
        return
    path = Path(source.path)
    label = name or path.name
    form = file_format(path)
    if form is None:
        raise DataFileError(f"{path} is of no known data format")
    with data_file_errors(path, form[1]) as after:
        for row in _reader(form[0])(path, form[1], label, memory):
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
            return partial(read_csv, usual="\t")
        case "parquet":
            return read_parquet
        case "arrow":
            return read_arrow
