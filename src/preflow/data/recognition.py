"""What a file holds, demonstrations or preference pairs, by the formats of its first rows."""

from collections.abc import Iterable
from itertools import islice

from preflow.config.validation import ReadingSettings
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.joined_rows import FIRST_ROWS
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.table import kinds
from preflow.data.validated import DataKind


def first_rows(sources: Iterable[DataSource]) -> list[RawRow]:
    """The rows at the beginning of each source that can be parsed.

    Raises:
        DataFileError: A file cannot be read.
    """
    rows = (row for source in sources for row in islice(read_rows(source), FIRST_ROWS))
    return [row for row in map(from_quarantine, rows) if row.malformed is None]


def recognised_kinds(rows: Iterable[RawRow], settings: ReadingSettings) -> dict[DataKind, str]:
    """What rows can be read as, each with the first row that shows it."""
    seen: dict[DataKind, str] = {}
    for raw in rows:
        for kind, form in kinds(Row.of(raw, settings)):
            seen.setdefault(kind, f"{raw.file}:{raw.row} is {form.name}: {form.how}")
    return seen
