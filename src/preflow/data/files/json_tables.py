"""JSON values that hold a table, as pandas and others write it, and objects that are written over several lines."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

_SPACE = " \t\r\n"
#: Names under which files keep their rows as a list beside what describes them (pandas' ``orient="table"``, the hub's
#: server of rows, answers of web interfaces).
_ROWS = frozenset({"data", "rows", "examples", "instances", "records", "items", "samples"})
#: Columns beside which such a list is a part of one row.
_COLUMNS = frozenset({
    *("prompt", "question", "query", "instruction", "input", "problem", "text", "messages", "conversations"),
    *("completion", "response", "answer", "output", "chosen", "rejected"),
})  # fmt: skip


def is_table(value: Any) -> bool:
    """Whether an object holds several rows: pandas' ``split``, ``columns`` or ``index``, or lists of equal length."""
    return table_rows(value) is not None


def table_rows(value: Any) -> Iterator[dict[str, Any]] | None:
    """The rows of a table; none where the value is no table.

    ``{"columns": [...], "data": [[...], ...]}``, ``{"prompt": {"0": ..., "1": ...}, ...}``, ``{"0": {...}, ...}`` and
    ``{"prompt": [...], "completion": [...]}`` are tables, and so is ``{"data": [{...}, ...]}``, whatever describes the
    rows beside them.
    """
    if not isinstance(value, dict) or not value:
        return None
    if (inner := _inner_rows(value)) is not None:
        return iter(inner)
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and set(value) <= {"columns", "data", "index"}:
        return _split(columns, data)
    held = list(value.values())
    if all(isinstance(column, dict) for column in held):
        return _of_objects(value)
    return _of_lists(value) if all(isinstance(column, list) for column in held) and not _is_row(value) else None


def _inner_rows(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The one list of rows of an object that is no row itself."""
    found = [key for key, held in value.items() if key.lower() in _ROWS and _is_list_of_rows(held)]
    if len(found) != 1 or any(key.lower() in _COLUMNS for key in value):
        return None
    rows: list[dict[str, Any]] = value[found[0]]
    if all("row_idx" in row and isinstance(row.get("row"), dict) for row in rows):
        return [row["row"] for row in rows]
    return rows


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) and not _is_turn(row) for row in value)


def _of_objects(value: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]] | None:
    """Rows by their number, or columns that hold values by the number of the row."""
    if all(key.isdecimal() for key in value):
        return iter(value.values())
    numbered = all(column and all(key.isdecimal() for key in column) for column in value.values())
    return _columns(value) if numbered else None


def _of_lists(value: dict[str, list[Any]]) -> Iterator[dict[str, Any]] | None:
    """Columns as lists."""
    if len(value) == 1 or len({len(column) for column in value.values()}) > 1:
        return None
    return (dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True))


def _is_row(value: dict[str, Any]) -> bool:
    """Whether lists are conversations: the turns of one row, not the values of many."""
    return any(isinstance(held, list) and held and _is_turn(held[0]) for held in value.values())


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"role", "from"})


def _split(columns: list[Any], data: list[Any]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(data, 1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"row {number} of 'data' has not the {len(columns)} values that 'columns' names")
        yield dict(zip(map(str, columns), row, strict=True))


def _columns(value: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    keys = dict.fromkeys(chain.from_iterable(value.values()))
    for key in keys:
        yield {name: column.get(key) for name, column in value.items()}


def objects(text: str, decoder: json.JSONDecoder) -> Iterator[Any]:
    """JSON values that follow each other, each over any number of lines.

    Raises:
        ValueError: Not JSON; says where.
    """
    at = 0
    while True:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        if at == len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        yield value
