"""Sources cut into chunks of a few megabytes, so that no file needs to fit in memory and several processes can read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.jsonl import jsonl_row, long_row
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.text_files import (
    MEMORY,
    LongLine,
    data_file_errors,
    longest,
    mark_bytes,
    open_text,
    text_blocks,
)
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

    def _lines(self) -> Iterator[bytes]:
        if isinstance(self.text, bytes):
            yield from _split(self.text)
            return
        assert self.text is not None, "read() asked"
        path, start, size = self.text
        with data_file_errors(Path(path)), Path(path).open("rb") as stream:
            stream.seek(start)
            text = stream.read(size)
        if len(text) != size:
            raise DataFileError(f"{path} has changed while it was read: it is shorter than it was")
        yield from _split(text)


def _split(text: bytes) -> Iterator[bytes]:
    """The lines of a text: of a few long ones, one copy at a time."""
    if len(text) <= 2 * CHUNK_BYTES:
        yield from text.split(b"\n")
        return
    start = 0
    while (stop := text.find(b"\n", start)) >= 0:
        yield text[start:stop]
        start = stop + 1
    yield text[start:]


def chunks(source: DataSource, name: str, part: Part, memory: int = MEMORY) -> Iterator[Chunk]:
    """Cut one source into chunks.

    Args:
        source: As ``resolve_sources`` returned it.
        name: What to call it in findings.
        part: Which part of the recipe names it.
        memory: Bytes of memory for rows.

    Raises:
        DataFileError: The file cannot be read or is not of the kind that its name says; names file and line.
    """
    path = Path(source.path)
    form = None if is_hub(source.path) else file_format(path)
    if form is not None and form[0] == "jsonl" and not source.reading_settings():
        yield from _text_chunks(path, form[1], name, part, memory)
        return
    yield from row_chunks(read_rows(source, name, memory), name, part)


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


def _text_chunks(path: Path, compression: str | None, name: str, part: Part, memory: int) -> Iterator[Chunk]:
    limit = longest(memory)
    with data_file_errors(path, compression) as after, open_text(path, compression, memory=memory) as stream:
        start = 0 if compression else mark_bytes(path)
        number = 1
        for block in text_blocks(stream, CHUNK_BYTES, limit):
            if isinstance(block, LongLine):
                yield Chunk(name, part, rows=(long_row(block, name, number, limit),))
                number, start = number + 1, start + block.size
            else:
                text = block if compression else (str(path.resolve()), start, len(block))
                yield Chunk(name, part, number, text)
                number, start = number + block.count(b"\n"), start + len(block)
            after[0] = number - 1
