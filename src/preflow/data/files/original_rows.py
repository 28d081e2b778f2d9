"""Rows as the users' files hold them, with every column: for the few that are quarantined."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.jsonl import from_quarantine, jsonl_row
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.text_files import MEMORY, LongLine, data_file_errors, open_text, text_lines
from preflow.errors import DataFileError
from preflow.formats import file_format


class OriginalRows:
    """Reads rows again, in the order of the files; lines between them are passed over without being parsed.

    Args:
        sources: The files, by the names that findings give them.
    """

    def __init__(self, sources: Mapping[str, DataSource]) -> None:
        self._sources = sources
        self._file = ""
        self._passed = 0
        self._lines: Iterator[bytes] | None = None
        self._rows: Iterator[RawRow] = iter(())

    def values(self, file: str, row: int) -> dict[str, Any]:
        """All columns of a row.

        Args:
            file: Name of its source.
            row: Its number there; within a file the numbers rise from call to call.

        Raises:
            DataFileError: The file cannot be read any more, or has become shorter.
        """
        if file != self._file:
            self._open(file)
        raw = self._line(row) if self._lines is not None else next((raw for raw in self._rows if raw.row >= row), None)
        if raw is None:
            raise DataFileError(f"{self._sources[file].path} has changed while it was read: it has no row {row} now")
        return from_quarantine(raw).values

    def _open(self, file: str) -> None:
        source = self._sources[file]
        path = Path(source.path)
        form = None if is_hub(source.path) else file_format(path)
        self._file, self._passed = file, 0
        if form is not None and form[0] == "jsonl":
            self._lines = _lines(path, form[1])
        else:
            self._lines, self._rows = None, read_rows(source, file)

    def _line(self, row: int) -> RawRow | None:
        assert self._lines is not None, "values() asked"
        line = next(islice(self._lines, row - self._passed - 1, None), None)
        self._passed = row
        return None if line is None else jsonl_row(line, self._file, row)


def _lines(path: Path, compression: str | None) -> Iterator[bytes]:
    with data_file_errors(path), open_text(path, compression) as stream:
        for line in text_lines(stream, MEMORY):
            yield b"" if isinstance(line, LongLine) else line  # no line of that size was read as a row
