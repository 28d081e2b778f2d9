"""Rows of a source, where several of its rows together may make one."""

from collections.abc import Iterator, Sequence
from itertools import islice

from preflow.config.validation import ReadingSettings
from preflow.data.files.chunks import Chunk, Part, chunks, row_chunks
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.text_files import MEMORY
from preflow.data.row_formats.candidates import unclear_numbers
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.verdicts import has_verdict, join_verdicts
from preflow.data.validated import DataKind
from preflow.errors import DataFileError

#: Rows at the beginning of a source that tell how it is written.
FIRST_ROWS = 100


def joined_chunks(
    kind: DataKind, source: DataSource, name: str, part: Part, settings: ReadingSettings, memory: int = MEMORY
) -> Iterator[Chunk]:
    """A source cut into chunks; of pairs, rows with a verdict on one answer are joined first.

    Args:
        kind: What the rows are read as.
        source: As ``resolve_sources`` returned it.
        name: What to call it in findings.
        part: Which part of the recipe names it.
        settings: How rows are read.
        memory: Bytes of memory for rows.

    Raises:
        DataFileError: The file cannot be read or is not of the kind that its name says; names file and line. Or numbers
            name the better of two answers, and it is unclear which.
    """
    first = _first_rows(source, settings) if kind == "preferences" else []
    _require_clear_winners(source, first)
    if any(map(has_verdict, first)):
        rows = map(from_quarantine, read_rows(source, name, memory))
        return row_chunks(join_verdicts(rows, settings), name, part)
    return chunks(source, name, part, memory)


def joined_rows(kind: DataKind, source: DataSource, settings: ReadingSettings) -> Iterator[RawRow]:
    """The same rows one after the other."""
    rows = map(from_quarantine, read_rows(source))
    if kind == "preferences" and any(map(has_verdict, _first_rows(source, settings))):
        return join_verdicts(rows, settings)
    return rows


def _require_clear_winners(source: DataSource, rows: Sequence[Row]) -> None:
    unclear = unclear_numbers(rows)
    if unclear is not None:
        raise DataFileError(
            f"{source.path}: {unclear}, so it is unclear which number names which answer. Write the winner as the "
            "name of its answer's column, or as tie"
        )


def _first_rows(source: DataSource, settings: ReadingSettings) -> list[Row]:
    """The rows at the beginning of a source that tell how it is written."""
    first = islice(read_rows(source), FIRST_ROWS)
    return [Row.of(raw, settings) for raw in map(from_quarantine, first) if raw.malformed is None]
