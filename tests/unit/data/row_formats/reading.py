"""What tests of formats share: rows read by their columns, and what was noted of them."""

from typing import Any

from preflow.config.validation import ReadingSettings, RowReading
from preflow.data.conversion import RowProblem, read_demonstration, read_pairs
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.row import RowNotes
from preflow.data.rows import Demonstration, Pair


def shown(values: dict[str, Any], reading: RowReading | None = None, **settings: Any) -> tuple[Demonstration, RowNotes]:
    return read_demonstration(RawRow("f.jsonl", 7, values, reading=reading), ReadingSettings(**settings))


def pairs(values: dict[str, Any], reading: RowReading | None = None, **settings: Any) -> tuple[list[Pair], RowNotes]:
    return read_pairs(RawRow("f.jsonl", 7, values, reading=reading), ReadingSettings(**settings))


def said(row: Demonstration | Pair) -> Any:
    """Roles and texts of a demonstration; of a pair, its prompt's, and both answers."""
    if isinstance(row, Demonstration):
        return [(turn.role, turn.content) for turn in row.messages]
    answers = ["\n".join(turn.content for turn in answer) for answer in (row.chosen, row.rejected)]
    return ([(turn.role, turn.content) for turn in row.prompt], *answers)


def problem(kind: str, values: dict[str, Any], **settings: Any) -> tuple[str, str]:
    """Finding and detail of a row that cannot be used."""
    try:
        pairs(values, **settings) if kind == "preferences" else shown(values, **settings)
    except RowProblem as found:
        return found.finding, found.detail
    return "fine", ""
