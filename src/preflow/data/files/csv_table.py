"""Rows of CSV and TSV files: one record per row under a header of column names."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preflow.data.files.raw_rows import RawRow
from preflow.data.files.text_files import READ_AHEAD, longest, open_text
from preflow.errors import DataFileError
from preflow.redaction import quoted


def read_csv(path: Path, compression: str | None, name: str, memory: int, usual: str = ",") -> Iterator[RawRow]:
    """The records of a CSV file, or of a TSV file by its own delimiter; semicolons or tabs where the header has those.

    A record with a wrong number of fields, or with bytes that are not UTF-8, is malformed.

    Raises:
        DataFileError: The header names a column twice.
        ValueError: The header is not UTF-8, a quote is never closed, or a field is longer than the memory allows.
    """
    # The default limit of 128 kB per field is a guard of the csv module, not a property of the file.
    csv.field_size_limit(longest(memory))
    with open_text(path, compression, memory=memory) as stream:
        delimiter = _delimiter(stream, usual)
        # A byte that is not UTF-8 spoils its own record alone, see _not_text.
        lines = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        records = _records(csv.reader(_lines(lines, longest(memory)), strict=True, delimiter=delimiter))
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
            yield RawRow(name, number, {"line": delimiter.join(record)}, malformed=f"line {line}: {problem}")


def _lines(stream: io.TextIOWrapper, limit: int) -> Iterator[str]:
    """The lines of a file.

    Raises:
        ValueError: One has more characters than the memory allows.
    """
    for number, line in enumerate(iter(lambda: stream.readline(limit + 1), ""), 1):
        if len(line) > limit:
            raise ValueError(
                f"line {number} has more than {limit:,} characters, as validation.memory_mb allows; raise it or cut it"
            )
        yield line


def _delimiter(stream: io.BufferedReader, usual: str) -> str:
    """The delimiter of a file: its format's, or the one that its header has in place of it."""
    header = stream.peek(READ_AHEAD).partition(b"\n")[0]
    others = (mark for mark in (";", "\t") if mark.encode() in header)
    return usual if usual.encode() in header else next(others, usual)


def _records(records: Any) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file with the line in which each begins: a quoted field may span several lines."""
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "a field that holds a quote must be quoted as a whole, with its own quotes doubled"
            raise ValueError(f"the record that begins in line {line}: {error} ({hint})") from error
        yield line, record


def _not_text(record: list[str]) -> str | None:
    """Which byte of a record is not UTF-8; none where all are."""
    for value in record:
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                return f"byte 0x{ord(value[error.start]) - 0xDC00:02x} is not UTF-8"
    return None
