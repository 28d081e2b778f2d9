"""A source of rows, and a row as its file holds it, before any check."""

from dataclasses import dataclass
from typing import Any

from preflow.config.base import Frozen
from preflow.config.validation import RowReading


class DataSource(Frozen):
    """One file of rows (or one split of a hub data set) and its contents' digest."""

    path: str
    """The file as it is read, or ``owner/name:split@commit`` (``owner/name:config:split@commit``) of a hub data set."""
    digest: str
    """SHA-256 of the file's bytes, or the hub commit and split."""
    left_out: tuple[str, ...] = ()
    """Files beside it that hold other splits and are not read, by their names below the folder given."""
    reading: RowReading | None = None
    """How its rows are written, where the recipe tells it."""
    rows: int | None = None
    """Only the first so many rows are read; all where none."""

    def reading_settings(self) -> dict[str, Any]:
        """What the recipe says of the source, and changes the rows; empty where it says nothing."""
        said = {} if self.reading is None else self.reading.model_dump(exclude_defaults=True)
        return said if self.rows is None else {**said, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before any check.

    Attributes:
        file: Name of the source, as findings give it.
        row: 1-based line number in JSONL, 1-based record number otherwise (a CSV's header is not counted).
        values: Column names to values. For a malformed line, ``{"line": text}``.
        malformed: The parser's message where the line could not be parsed as a row.
        reading: How the row is written, where the recipe tells it.
    """

    file: str
    row: int
    values: dict[str, Any]
    malformed: str | None = None
    reading: RowReading | None = None
