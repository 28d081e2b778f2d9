"""What users' rows hold, as it can be written and shown: text for every encoding, JSON for every reader."""

import json
import math
from typing import Any

#: Characters of a value that a message quotes: enough to find it, too few to carry a text into a report.
_QUOTED = 40
#: Columns nested deeper than this are not written again: readers of JSON give up at some depth, each at its own.
_DEEPEST = 64
_TOO_DEEP = "(nested too deeply to be written again)"


def printable(text: str) -> str:
    """The text with its lone surrogates, which no encoding can write, as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def quoted(text: str) -> str:
    """The beginning of a text, as messages name it."""
    return printable(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def row_json(values: dict[str, Any]) -> bytes:
    """A row as one line of JSON, whatever its columns hold.

    ``NaN`` and ``Infinity``, which JSON does not have, become null, as they do where rows are read. Lone surrogates
    become their escapes, so that they read back as they were. Dates and the like become text.
    """
    text = json.dumps(_plain(values, _DEEPEST), ensure_ascii=False, allow_nan=False, default=str)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _plain(value: Any, deepest: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list | tuple):
        return value
    if not deepest:
        return _TOO_DEEP
    if isinstance(value, dict):
        return {str(key): _plain(held, deepest - 1) for key, held in value.items()}
    return [_plain(held, deepest - 1) for held in value]
