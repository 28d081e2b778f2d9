"""A row while it is read: which of its columns were used, and what was changed on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from preflow.config.validation import ReadingSettings
from preflow.data.row_formats.cells import is_empty, is_null
from preflow.data.row_formats.names import normal

#: A column that says where a row is from: the report counts it, so it is used.
SOURCE = "source"
#: What may be changed in a row on the way, in words.
CHANGED = {
    "end_token_removed": "end token at the end of a text removed",
    "transcript_parsed": "transcript (Human:, Assistant:) parsed into turns",
    "cell_parsed": "list in a cell parsed",
    "reasoning_kept": "reasoning kept for chat templates that write it",
    "written_null_ignored": "written null in an optional column ignored",
    "later_turns_left_out": "turns after the first answers that differ left out",
    "several_turns_compared": "several turns compared as one response",
    "ranking_compared": "ranking turned into pairs",
}


@dataclass(slots=True)
class RowNotes:
    """What is to be said of a row that was read.

    Attributes:
        row_format: Name of the format that was recognised.
        used: Columns that hold something and were used.
        columns: Columns that hold something and were not used.
        turn_keys: Keys of turns that hold something and were not used.
        changed: What was changed on the way, by name.
        scores: What the scores say: ``agree``, ``tie`` or ``inverted``; none where there are none.
        made: Whether the row was made of one of several answers, or of several rows.
    """

    row_format: str = ""
    used: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    turn_keys: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    scores: str | None = None
    made: bool = False


class Row:
    """Columns of a row by their compared names; what is asked for is used.

    Args:
        values: The columns as the file holds them.
        settings: How the recipe wants rows to be read.
    """

    def __init__(self, values: Mapping[str, Any], settings: ReadingSettings) -> None:
        self.settings = settings
        self.notes = RowNotes()
        self._values = values
        self._names: dict[str, str] = {}
        for name in values:
            key = normal(name)
            if key not in self._names or key == name:
                self._names[key] = name
        self._used: set[str] = {self._names.get(SOURCE, "")}

    def names(self) -> list[str]:
        """The columns as the file names them."""
        return list(self._values)

    def given(self, name: str) -> bool:
        """Whether there is such a column, though it may be null."""
        return name in self._names

    def has(self, name: str) -> bool:
        """Whether there is such a column and it is not null."""
        return name in self._names and not is_null(self._values[self._names[name]])

    def peek(self, name: str) -> Any:
        """The value of a column, null where there is none; the column does not count as used."""
        value = self._values[self._names[name]] if name in self._names else None
        return None if is_null(value) else value

    def get(self, name: str) -> Any:
        """The same of a column that is used."""
        self.use(name)
        return self.peek(name)

    def use(self, *names: str) -> None:
        """Count columns as used."""
        self._used.update(self._names[name] for name in names if name in self._names)

    def first(self, names: Iterable[str], *, null: bool = False) -> str | None:
        """The first of several names that is a column with a value; with ``null``, else one that is null."""
        found = next((name for name in names if self.has(name)), None)
        return found or (next((name for name in names if self.given(name)), None) if null else None)

    def column(self, name: str) -> str:
        """A column as the file names it."""
        return self._names.get(name, name)

    def used(self) -> tuple[str, ...]:
        """Columns with a value that were used."""
        return tuple(name for name, value in self._values.items() if name in self._used and not is_empty(value))

    def unused(self) -> tuple[str, ...]:
        """Columns with a value that were not used."""
        return tuple(name for name, value in self._values.items() if name not in self._used and not is_empty(value))
