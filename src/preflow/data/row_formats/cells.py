"""Values of cells: nulls however they are written, yes and no, and lists that a text holds."""

import json
import math
import re
from ast import literal_eval
from typing import Any

#: How other programs write that there is nothing.
WRITTEN_NULLS = frozenset(
    {"nan", "NaN", "NAN", "None", "null", "NULL", "Null", "N/A", "n/a", "NA", "<NA>", "#N/A", "NaT", "undefined"}
)
_LONGEST_NULL = max(map(len, WRITTEN_NULLS))
#: No score has more characters.
_LONGEST_NUMBER = 40
_YES = frozenset({"true", "yes", "t", "y", "good", "desirable", "chosen", "accepted"})
_NO = frozenset({"false", "no", "f", "n", "bad", "undesirable", "rejected", "refused"})
#: A literal as Python writes it: texts, brackets and marks, words and numbers. No part can match what another does.
_TOKEN = re.compile(
    r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([\[\]{}:,]|\s+)|(None|True|False)|(-?[0-9.eE+-]+)", re.S
)
_WORDS = {"None": "null", "True": "true", "False": "false"}


def is_null(value: Any) -> bool:
    """Whether a cell holds nothing: null, or a number that is none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing that could be lost: null, blank text, an empty list or object, also as text."""
    if is_null(value):
        return True
    if isinstance(value, str):
        return value.strip() in {"", "[]", "{}", "null"} or is_written_null(value)
    return isinstance(value, list | dict | tuple) and not value


def is_written_null(text: str) -> bool:
    """Whether a text is nothing but the name of a null, as ``nan`` in files that pandas wrote."""
    return len(text) <= _LONGEST_NULL + 8 and text.strip() in WRITTEN_NULLS


def truth(value: Any) -> bool | None:
    """Yes or no, as booleans, 0 and 1, or words (``t`` and ``f`` in tables of databases); none where it is neither."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) and len(value) < 20 else ""
    if word in _YES or word in _NO:
        return word in _YES
    found = number(value)
    return bool(found) if found in (0, 1) else None


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text; none where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def looks_like_turns(text: str) -> bool:
    """Whether a text begins and ends as a list of turns, or one turn, written as JSON or by Python."""
    text = _unwrapped(text)
    head = text[:200].lstrip()
    if not head.startswith(("[", "{")) or text.rstrip()[-1:] not in ("]", "}"):
        return False
    start = head[1:].lstrip() if head[0] == "[" else head
    return start.startswith("{") and all(
        any(f"{mark}{key}{mark}" in text for mark in "\"'" for key in keys)
        for keys in (("role", "from"), ("content", "value", "text"))
    )


def parse_list(text: str) -> Any:
    """A list or object that a text holds, as JSON or as Python writes it; none where it holds neither.

    The time is linear in the text's length, whatever it holds.
    """
    text = _unwrapped(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _parse_python(text)
    return found if isinstance(found, list | dict) else None


def _unwrapped(text: str) -> str:
    """The list inside ``array([...], dtype=object)``, as numpy writes it; any other text as it is."""
    if not text[:20].lstrip().startswith("array("):
        return text
    inner = text.strip().removeprefix("array(").removesuffix(")").rstrip()
    return inner.removesuffix("dtype=object").rstrip().removesuffix(",")


def _parse_python(text: str) -> Any:
    """The same for Python's way of writing, turned into JSON token by token."""
    parts, at = [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        at = token.end()
        if token[1] is not None or token[2] is not None:
            try:
                parts.append(json.dumps(literal_eval(token[0].replace("\n", "\\n"))))
            except (ValueError, SyntaxError):
                return None
        else:
            parts.append(_WORDS.get(token[0], token[0]))
    try:
        return json.loads("".join(parts))
    except (ValueError, RecursionError):
        return None
