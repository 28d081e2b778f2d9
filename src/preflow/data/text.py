"""What users' rows hold, as it can be written and shown: text for every encoding, JSON for every reader."""

import json
import math
import re
import unicodedata
from typing import Any

#: Columns nested deeper than this are not written again: readers of JSON give up at some depth, each at its own.
_DEEPEST = 64
_TOO_DEEP = "(nested too deeply to be written again)"

_SIGNS = "+/=<>%^$&@~\\"
#: Bytes of ASCII text to those of its words, lower-cased: what belongs to no word becomes a blank.
WORD_BYTES = bytes(
    code if code > 127 or chr(code) in _SIGNS or chr(code).isalnum() else 32 for code in range(256)
).lower()
_MARK = re.compile(rf"[^\w\s{re.escape(_SIGNS)}]|_")
#: Characters that take no room, which copied texts carry along: marks of direction, joiners, forms, fillers.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U000e0000-\U000e0fff]"
)
#: Characters that are ordered behind a letter: those of a combining class, and five that decompose to such. Beyond the
#: basic plane a wide range stands for them where only a first look is wanted.
_MARKS = "".join(
    chr(code)
    for code in (*range(0x300, 0x1E94B), 0xF73, 0xF75, 0xF81, 0xFF9E, 0xFF9F)
    if unicodedata.combining(chr(code)) or code in (0xF73, 0xF75, 0xF81, 0xFF9E, 0xFF9F)
)
_NEARLY_MARK = f"[{''.join(mark for mark in _MARKS if mark <= chr(0xFFFF))}\U000101fd-\U0001e94a]"
_MANY_MARKS = re.compile(f"{_NEARLY_MARK}{_NEARLY_MARK}{{30}}")
_THIRTY_MARKS = re.compile(f"([{_MARKS}]{{30}})(?=[{_MARKS}])")
#: Scripts that write no spaces between words: each character counts as one.
_CHARACTER = re.compile("([\u3040-\u30ff\u3400-\u9fff])")


def printable(text: str) -> str:
    """The text with its lone surrogates, which no encoding can write, as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


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


def compatible(text: str) -> str:
    """The text in Unicode's form NFKC, in time linear in its length.

    Marks behind a letter are put in order by a sort that takes the square of their number, so runs of more than thirty
    are parted first: the stream-safe text format (Unicode Standard Annex 15, section 13).
    """
    if text.isascii():
        return text
    if _MANY_MARKS.search(text) is not None:
        text = _THIRTY_MARKS.sub("\\1\u034f", text)
    return unicodedata.normalize("NFKC", text)


def normalise(text: str) -> str:
    """Text up to Unicode form, case and white space: NFKC, case-folded, runs of white space as one blank."""
    if text.isascii():
        return " ".join(text.lower().split())
    # Case folding can leave NFKC, so the form is restored after it.
    folded = compatible(compatible(text).casefold())
    return " ".join(folded.split())


def is_blank(text: str) -> bool:
    """Whether no character can be seen: white space, control characters and what takes no room alone, or nothing."""
    if "!" <= text[:1] <= "~":  # nearly every text
        return False
    return not any(char.isprintable() and not char.isspace() for char in visible(text))


def visible(text: str) -> str:
    """The text without characters that take no room."""
    return text if text.isascii() else _INVISIBLE.sub("", text).replace("\u2800", " ")  # a Braille cell without dots


def fold(text: str) -> str:
    """A text whose words have one form; marks of the ASCII kind are left to ``Words``."""
    if text.isascii():
        return text
    plain = compatible(compatible(visible(text)).casefold())
    return " ".join(_CHARACTER.sub(r" \1 ", _MARK.sub(" ", plain)).split())


def folded_words(text: str) -> list[str]:
    """The words of one text, as ``Words`` counts them."""
    return fold(text).encode("utf-8", "surrogatepass").translate(WORD_BYTES).decode("utf-8", "surrogatepass").split()
