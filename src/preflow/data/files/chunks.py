"""Sources cut into chunks of a few megabytes, so that no file needs to fit in memory and several processes can read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.jsonl import jsonl_row
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.text_files import data_file_errors, mark_bytes, open_text
from preflow.errors import DataFileError
from preflow.formats import file_format

Part = Literal["train", "eval"]
#: Bytes of text in a chunk.
CHUNK_BYTES = 4 << 20
#: Characters and rows at which a chunk is full where the rows themselves are handed over, and several chunks wait.
_ROW_CHARACTERS, _ROWS = 1 << 20, 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one source that stand together.

    Attributes:
        file: Name of the source, as findings give it.
        part: Which part of the recipe names it.
        first: Line number of the first line of text.
        text: Lines of JSONL, or where they lie: path, first byte, number of bytes.
        rows: The rows, for every other kind of file.
    """

    file: str
    part: Part
    first: int = 1
    text: bytes | tuple[str, int, int] | None = None
    rows: tuple[RawRow, ...] = ()

    def read(self) -> Iterator[RawRow]:
        """The rows, in the order of the file."""
        if self.text is None:
            yield from self.rows
            return
        for number, line in enumerate(self._lines(), self.first):
            if line and not line.isspace():
                yield jsonl_row(line, self.file, number)

    def _lines(self) -> list[bytes]:
        if isinstance(self.text, bytes):
            return self.text.split(b"\n")
        assert self.text is not None, "read() asked"
        path, start, size = self.text
        with data_file_errors(Path(path)), Path(path).open("rb") as stream:
            stream.seek(start)
            text = stream.read(size)
        if len(text) != size:
            raise DataFileError(f"{path} has changed while it was read: it is shorter than it was")
        return text.split(b"\n")


def chunks(source: DataSource, name: str, part: Part) -> Iterator[Chunk]:
    """Cut one source into chunks.

    Raises:
        DataFileError: The file cannot be read or is not of the kind that its name says; names file and line.
    """
    path = Path(source.path)
    form = None if is_hub(source.path) else file_format(path)
    if form is not None and form[0] == "jsonl" and not source.reading_settings():
        yield from _text_chunks(path, form[1], name, part)
        return
    yield from row_chunks(read_rows(source, name), name, part)


def row_chunks(rows: Iterable[RawRow], name: str, part: Part) -> Iterator[Chunk]:
    """Put rows of one source into chunks."""
    batch: list[RawRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += _characters(row.values)
        if len(batch) == _ROWS or size >= _ROW_CHARACTERS:
            yield Chunk(name, part, rows=tuple(batch))
            batch, size = [], 0
    if batch:
        yield Chunk(name, part, rows=tuple(batch))


def _characters(value: Any, deepest: int = 8) -> int:
    """About how much text a row holds, whatever its form; what is nested deeper than any turn does not count."""
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, dict | list) or not deepest:
        return 0
    return sum(_characters(held, deepest - 1) for held in (value.values() if isinstance(value, dict) else value))


def _text_chunks(path: Path, compression: str | None, name: str, part: Part) -> Iterator[Chunk]:
    with data_file_errors(path, compression) as after, open_text(path, compression) as stream:
        start = 0 if compression else mark_bytes(path)
        number = 1
        while lines := stream.readlines(CHUNK_BYTES):
            size = sum(map(len, lines))
            yield Chunk(name, part, number, b"".join(lines) if compression else (str(path.resolve()), start, size))
            number += len(lines)
            start += size
            after[0] = number - 1
