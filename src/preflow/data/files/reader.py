"""The rows of one source as they stand in the file, one after the other, without holding the file in memory."""

import csv
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from preflow import hub
from preflow.data.files.json_array import elements
from preflow.data.files.parquet import batch_rows
from preflow.data.files.sources import DataSource, file_kind, hub_parts, is_hub
from preflow.data.text import quoted
from preflow.errors import DataDownloadError, DataFileError

_READ_AHEAD = 1 << 20
#: The same where it is sought how far a broken file can be read.
_READ_AHEAD_OF_FAULT = 256
#: First bytes that betray a file whose name says something else.
_BINARY_HEADS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip-packed",
    b"\x28\xb5\x2f\xfd": "zstd-packed",
    b"PK\x03\x04": "a zip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
#: Columns that tell a line of the quarantine from a row of data.
_QUARANTINED = frozenset({"kind", "file", "row", "finding", "values"})
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before any judgement.

    Attributes:
        file: Name of the source, as findings give it.
        row: 1-based line number in JSONL, 1-based record number otherwise (a CSV's header is not counted).
        values: Column names to values. For a malformed line, ``{"line": text}``.
        malformed: The parser's message where the line is no row at all.
    """

    file: str
    row: int
    values: dict[str, Any]
    malformed: str | None = None


def read_rows(source: DataSource, name: str | None = None) -> Iterator[RawRow]:
    """Yield the rows of one source in the order of the file.

    Args:
        source: As ``resolve_sources`` returned it.
        name: What to call the source in findings; the file's own name where not given.

    Raises:
        DataFileError: The file cannot be read or is not of the kind that its name says; names file and line.
    """
    if is_hub(source.path):
        yield from _read_hub(source, name or source.path.rpartition("@")[0])
        return
    path = Path(source.path)
    label = name or path.name
    kind = file_kind(path)
    if kind is None:
        raise DataFileError(f"{path} is no known kind of data file")
    with unreadable(path, kind[1]) as after:
        for row in _READERS[kind[0]](path, kind[1], label):
            after[0] = row.row
            yield row


@contextmanager
def unreadable(path: Path, packing: str | None = None) -> Iterator[list[int]]:
    """Turn whatever a reader of a file can raise into one clear error.

    Args:
        path: The file.
        packing: Its packing. Of a packed file the lines that can be read are counted, as it is unpacked far ahead.

    Yields:
        A list of one number, the last row that was read, which the reader keeps up to date.

    Raises:
        DataFileError: The file cannot be read; names the file, the last good row and the reason.
    """
    after = [0]
    try:
        yield after
    except DataFileError:
        raise
    except (OSError, EOFError, ValueError, ArithmeticError, LookupError, zlib.error, pa.ArrowException) as error:
        where = f" after row {after[0]}" if after[0] else ""
        if packing is not None and (lines := _readable_lines(path, packing)):
            where = f" after line {lines}"
        raise DataFileError(f"data file {path} cannot be read{where}: {_reason(error)}") from error


class _Doubled(dict[str, Any]):
    """A JSON object that gives one key twice, so that nobody can say which value is meant."""

    key = ""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) == len(members):
        return found
    doubled = _Doubled(found)
    keys = [key for key, _ in members]
    doubled.key = next(key for key in keys if keys.count(key) > 1)
    return doubled


#: ``NaN`` and ``Infinity``, which other writers leave in unused columns, become null.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, object_pairs_hook=_object)


def parse_json(text: str) -> Any:
    """Parse JSON as ``_DECODER`` does.

    Raises:
        ValueError: Not JSON, or nested too deeply; the message says where.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _doubled_key(value: dict[str, Any]) -> str | None:
    """A key that the object, or one of the turns in it, gives twice."""
    if isinstance(value, _Doubled):
        return value.key
    turns = [turn for column in value.values() if isinstance(column, list) for turn in column]
    return next((turn.key for turn in turns if isinstance(turn, _Doubled)), None)


def _may_double(line: bytes, value: dict[str, Any]) -> bool:
    """Whether a key may stand twice in a line; the quick parser keeps the last of them and says nothing."""
    for key, column in value.items():
        if line.count(b'"%s"' % key.encode()) > 1:
            return True
        if type(column) is list and max(line.count(b'"role"'), line.count(b'"content"')) > _turns(value):
            return True
    return False


def _turns(value: dict[str, Any]) -> int:
    return sum(len(column) for column in value.values() if type(column) is list)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _readable_lines(path: Path, packing: str) -> int:
    """About how many lines of a broken file can be read; never more."""
    number = 0
    try:
        with open_text(path, packing, _READ_AHEAD_OF_FAULT) as stream:
            for line in stream:
                number += line.endswith(b"\n")
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException):
        return number
    return number


def open_text(path: Path, packing: str | None, ahead: int = _READ_AHEAD) -> io.BufferedReader:
    """Open a text file for reading bytes, unpacked, its byte order mark skipped."""
    stream = io.BufferedReader(pa.input_stream(str(path), compression=packing), ahead)
    head = stream.peek(4)[:4]
    for mark, what in _BINARY_HEADS.items():
        if head.startswith(mark):
            stream.close()
            raise DataFileError(
                f"{path} is {what}, not {path.suffix} text as its name says; rename or convert it (text must be UTF-8)"
            )
    if head.startswith(_BOM):
        stream.read(len(_BOM))
    return stream


def _read_jsonl(path: Path, packing: str | None, name: str) -> Iterator[RawRow]:
    with open_text(path, packing) as stream:
        for number, line in enumerate(stream, 1):
            if line.isspace():
                continue
            yield jsonl_row(line, name, number)


def jsonl_row(line: bytes, name: str, number: int) -> RawRow:
    """One line of a JSONL file as a row; what is no JSON object is a malformed row."""
    try:
        quick = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _careful_row(line, name, number)
    if type(quick) is dict and not _may_double(line, quick):
        return RawRow(name, number, quick)
    return _careful_row(line, name, number)


def from_quarantine(raw: RawRow) -> RawRow:
    """The row that a line of the gate's quarantine holds; any other row as it is."""
    held = raw.values.get("values")
    if raw.malformed is not None or not isinstance(held, dict) or not raw.values.keys() >= _QUARANTINED:
        return raw
    line = held.get("line")
    if raw.values["finding"] == "malformed_line" and isinstance(line, str):  # the line itself was mended, or was not
        return jsonl_row(line.encode("utf-8", "backslashreplace"), raw.file, raw.row)
    return RawRow(raw.file, raw.row, held)


def _careful_row(line: bytes, name: str, number: int) -> RawRow:
    """The same by the standard library: slower, with its messages, lone surrogates, NaN and doubled keys."""
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        value = parse_json(line.decode("utf-8"))
    except ValueError as error:
        return RawRow(name, number, {"line": text}, malformed=str(error))
    row = _object_row(value, name, number)
    return row if row.malformed is None else RawRow(name, number, {"line": text}, malformed=row.malformed)


def _object_row(value: Any, name: str, number: int) -> RawRow:
    if isinstance(value, dict):
        key = _doubled_key(value)
        if key is None:
            return RawRow(name, number, value)
        return RawRow(name, number, dict(value), malformed=f"the key '{quoted(key)}' is given twice")
    problem = f"expected an object {{...}}, got {_json_type(value)}"
    return RawRow(name, number, {"line": value}, malformed=problem)


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _read_json(path: Path, packing: str | None, name: str) -> Iterator[RawRow]:
    """An array of objects; a file of one object per line is read as JSONL, which many tools call ``.json``."""
    with open_text(path, packing) as stream:
        if not stream.peek(_READ_AHEAD).lstrip().startswith(b"["):
            yield from _read_jsonl(path, packing, name)
            return
        rows = enumerate(elements(stream, _DECODER), 1)
        while True:
            try:
                number, value = next(rows, (0, None))
            except ValueError as error:
                raise DataFileError(f"{path} is not valid JSON: {error}") from error
            if not number:
                return
            yield _object_row(value, name, number)


def _read_csv(path: Path, packing: str | None, name: str) -> Iterator[RawRow]:
    # The default limit of 128 kB per field is a guard of the csv module, not a property of the file.
    csv.field_size_limit(sys.maxsize)
    with open_text(path, packing) as stream:
        # A byte that is no UTF-8 spoils its own record alone, see _not_text.
        lines = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        records = _records(csv.reader(lines, strict=True))
        _, header = next(records, (0, None))
        if header is None:
            return
        if problem := _not_text(header):
            raise ValueError(f"line 1, the header: {problem}")
        if len(set(header)) < len(header):
            raise DataFileError(f"{path}: the header names a column twice: {', '.join(map(quoted, header))}")
        for number, (line, record) in enumerate(((n, r) for n, r in records if r), 1):
            problem = _not_text(record)
            if problem is None and len(record) == len(header):
                yield RawRow(name, number, dict(zip(header, record, strict=True)))
                continue
            columns = ", ".join(map(quoted, header))
            problem = problem or f"got {len(record)} fields, expected {len(header)} ({columns})"
            yield RawRow(name, number, {"line": ",".join(record)}, malformed=f"line {line}: {problem}")


def _records(records: Any) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file with the line in which each begins: what is in quotes may go over several."""
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"the record that begins in line {line}: {error}") from error
        yield line, record


def _not_text(record: list[str]) -> str | None:
    """What is wrong with a record that holds a byte which is no UTF-8."""
    for value in record:
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                return f"byte 0x{ord(value[error.start]) - 0xDC00:02x} is not UTF-8"
    return None


def _read_parquet(path: Path, packing: str | None, name: str) -> Iterator[RawRow]:
    import pyarrow.parquet as pq

    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=4096):
            for values in batch_rows(batch):
                number += 1
                yield RawRow(name, number, values)


_READERS = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def _read_hub(source: DataSource, name: str) -> Iterator[RawRow]:
    import httpx2
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    entry, _, commit = source.path.rpartition("@")
    dataset, config, split = hub_parts(entry)
    try:
        rows = load_dataset(dataset, config, split=split, revision=commit)
    except (OSError, ValueError, httpx2.HTTPError, DatasetsError) as error:
        kind = DataDownloadError if hub.may_pass(error) else DataFileError
        raise kind(f"hub data set '{entry}' cannot be read: {error}") from error
    for number, values in enumerate(rows, 1):
        yield RawRow(name, number, dict(values))
