"""A row while it is read: which of its columns were used, and what was changed on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from preflow.config.validation import ReadingSettings
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.reader import column_value, has_column
from preflow.data.row_formats.cells import is_empty, is_null
from preflow.data.row_formats.names import normal, other_names

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
        used: Columns that hold something and were used, each with the name that it is known by here.
        columns: Columns that hold something and were not used.
        turn_keys: Keys of turns that hold something and were not used.
        changed: What was changed on the way, by name.
        scores: What the scores say: ``agree``, ``tie`` or ``inverted``; none where there are none.
        made: Whether the row was made of one of several answers, or of several rows.
    """

    row_format: str = ""
    used: tuple[tuple[str, str], ...] = ()
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
        columns: Our names to the file's columns, where the recipe gives them; null for a column that is not read.
        form: The format that the recipe gives; none where it is found by the columns.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        settings: ReadingSettings,
        columns: Mapping[str, str | None] | None = None,
        form: str | None = None,
    ) -> None:
        self.settings = settings
        self.form = form
        self.notes = RowNotes()
        self._given, self._own = values, dict[str, str]()
        self._values = self._renamed(values, columns) if columns else values
        self._names: dict[str, str] = {}
        for name in self._values:
            key = normal(name)
            if key not in self._names or key == name:
                self._names[key] = name
        self._used: set[str] = {self._names.get(SOURCE, "")}

    @classmethod
    def of(cls, raw: RawRow, settings: ReadingSettings) -> Self:
        """A row of a source, read as the recipe says."""
        if raw.reading is None:
            return cls(raw.values, settings)
        form = raw.reading.format
        return cls(raw.values, settings, raw.reading.columns, None if form == "auto" else form)

    def _renamed(self, values: Mapping[str, Any], columns: Mapping[str, str | None]) -> dict[str, Any]:
        """The columns under our names, without those that would mean the same and those that are not to be read."""
        hidden = {other for name, column in columns.items() for other in other_names(name, mapped=column is not None)}
        taken = {column for column in columns.values() if column is not None and column in values}
        found = {name: value for name, value in values.items() if name not in taken and normal(name) not in hidden}
        for name, column in columns.items():
            if column is not None and has_column(values, column):
                found[name] = column_value(values, column)
                self._own[name] = column
        return found

    def names(self) -> list[str]:
        """The columns as the file names them."""
        return list(self._given)

    def values(self) -> Mapping[str, Any]:
        """The columns by the names that they are known by here."""
        return self._values

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
        found = self._names.get(name, name)
        return self._own.get(found, found)

    def used(self) -> tuple[tuple[str, str], ...]:
        """Columns with a value that were used, as the file names them, each with its compared name."""
        return tuple(
            (self._own.get(name, name), normal(name))
            for name, value in self._values.items()
            if name in self._used and not is_empty(value)
        )

    def unused(self) -> tuple[str, ...]:
        """Columns with a value that were not used, as the file names them."""
        used = {self._own.get(name, name).partition(".")[0] for name in self._used}
        if not self._own and self._given is self._values:
            used = self._used
        return tuple(name for name, value in self._given.items() if name not in used and not is_empty(value))
