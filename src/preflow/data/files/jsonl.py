"""Rows of JSONL files: each line by a quick parser, and by the standard library where that one cannot decide."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from preflow.data.files.raw_rows import RawRow
from preflow.data.files.text_files import LongLine, longest, open_text, text_lines
from preflow.redaction import quoted

#: Columns that tell a line of the quarantine from a row of data.
_QUARANTINED = frozenset({"kind", "file", "row", "finding", "values"})
#: Keys that are counted in a line one by one; a line with more is read with care at once.
_FEW_KEYS = 64
#: In a line with a whole number that may be beyond 64 bits, of which orjson makes a rounded one.
_LONG_NUMBER = re.compile(rb"\d{19}")


class _RepeatedKey(dict[str, Any]):
    """A JSON object that gives one key twice, so that it is undecided which value is meant."""

    key = ""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) == len(members):
        return found
    repeated = _RepeatedKey(found)
    times = Counter(key for key, _ in members)
    repeated.key = next(key for key, count in times.items() if count > 1)
    return repeated


#: ``NaN`` and ``Infinity``, which other writers leave in unused columns, become null.
DECODER = json.JSONDecoder(parse_constant=lambda _: None, object_pairs_hook=_object)


def parse_json(text: str) -> Any:
    """Parse JSON as ``DECODER`` does.

    Raises:
        ValueError: Not JSON, or nested too deeply; the message says where.
    """
    try:
        return DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_jsonl(path: Path, compression: str | None, name: str, memory: int) -> Iterator[RawRow]:
    """The rows of a file with one JSON object per line; blank lines are skipped."""
    limit = longest(memory)
    with open_text(path, compression, memory=memory) as stream:
        for number, line in enumerate(text_lines(stream, limit), 1):
            if isinstance(line, LongLine):
                yield long_row(line, name, number, limit)
            elif not line.isspace():
                yield jsonl_row(line, name, number)


def long_row(line: LongLine, name: str, number: int, limit: int) -> RawRow:
    """A line that is too long to be read, as a malformed row."""
    return RawRow(name, number, {"line": line.text}, malformed=line.problem(limit))


def jsonl_row(line: bytes, name: str, number: int) -> RawRow:
    """One line of a JSONL file as a row; a line that is no JSON object is a malformed row."""
    try:
        quick = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _careful_row(line, name, number)
    if type(quick) is dict and not _may_repeat_a_key(line, quick) and _LONG_NUMBER.search(line) is None:
        return RawRow(name, number, quick)
    return _careful_row(line, name, number)


def from_quarantine(raw: RawRow) -> RawRow:
    """The row that a line of a quarantine file holds; any other row as it is."""
    held = raw.values.get("values")
    if raw.malformed is not None or not isinstance(held, dict) or not raw.values.keys() >= _QUARANTINED:
        return raw
    line = held.get("line")
    if raw.values["finding"] == "malformed_line" and isinstance(line, str):  # the line itself, fixed or not
        return replace(jsonl_row(line.encode("utf-8", "backslashreplace"), raw.file, raw.row), reading=raw.reading)
    return replace(raw, values=held)


def _careful_row(line: bytes, name: str, number: int) -> RawRow:
    """The same by the standard library: slower, with its messages, lone surrogates, NaN and repeated keys."""
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        value = parse_json(line.decode("utf-8"))
    except ValueError as error:
        return RawRow(name, number, {"line": text}, malformed=str(error))
    row = object_row(value, name, number)
    return row if row.malformed is None else RawRow(name, number, {"line": text}, malformed=row.malformed)


def object_row(value: Any, name: str, number: int) -> RawRow:
    """A JSON value as a row; anything but an object whose keys differ is a malformed row."""
    if isinstance(value, dict):
        key = _repeated_key(value)
        if key is None:
            return RawRow(name, number, value)
        return RawRow(name, number, dict(value), malformed=f"the key '{quoted(key)}' is given twice")
    problem = f"expected an object {{...}}, got {_json_type(value)}"
    return RawRow(name, number, {"line": value}, malformed=problem)


def _repeated_key(value: dict[str, Any]) -> str | None:
    """A key that the object, or one of the turns in it, gives twice."""
    if isinstance(value, _RepeatedKey):
        return value.key
    turns = [turn for column in value.values() if isinstance(column, list) for turn in column]
    return next((turn.key for turn in turns if isinstance(turn, _RepeatedKey)), None)


def _may_repeat_a_key(line: bytes, value: dict[str, Any]) -> bool:
    """Whether a line may give a key twice; the quick parser keeps the last value without a word."""
    if len(value) > _FEW_KEYS or any(line.count(b'"%s"' % key.encode()) > 1 for key in value):
        return True
    turns = _turns(value)
    has_list = turns or any(type(column) is list for column in value.values())
    return bool(has_list) and max(line.count(b'"role"'), line.count(b'"content"')) > turns


def _turns(value: dict[str, Any]) -> int:
    return sum(len(column) for column in value.values() if type(column) is list)


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
