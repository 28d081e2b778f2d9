"""A row as its file holds it, before any check."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row before any check.

    Attributes:
        file: Name of the source, as findings give it.
        row: 1-based line number in JSONL, 1-based record number otherwise (a CSV's header is not counted).
        values: Column names to values. For a malformed line, ``{"line": text}``.
        malformed: The parser's message where the line could not be parsed as a row.
    """

    file: str
    row: int
    values: dict[str, Any]
    malformed: str | None = None
