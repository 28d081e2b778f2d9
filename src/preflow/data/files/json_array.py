"""Rows of a JSON file, above all of one array, one after the other, without holding the file in memory.

The standard library's decoder reads each element, so that its messages, lone surrogates, constants and hooks are those
of any other row; only the brackets and commas between elements are read here. A streaming parser such as ijson would
give neither the row, line and column of an error nor lone surrogates.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from preflow.data.files.json_tables import objects, table_rows
from preflow.data.files.jsonl import DECODER, object_row, read_jsonl
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.text_files import MEMORY, READ_AHEAD, longest, open_text
from preflow.errors import DataFileError

_READ = 1 << 20
_SPACE = " \t\r\n"
#: Blank lines that are passed over where a file's first lines are looked at.
_BLANK_LINES = 10_000
#: The longest thing that the end of what was read can cut in two: ``-Infinity``, or an escaped pair of surrogates.
_CUT = 16


def read_json(path: Path, compression: str | None, name: str, memory: int) -> Iterator[RawRow]:
    """The rows of a JSON file.

    An array of objects is read element by element, a file of one object per line, as many tools write ``.json``, as
    JSONL. A table in one object, and objects over several lines, are held in memory as a whole.

    Raises:
        DataFileError: Not JSON, names line and column; or an element or table is larger than the memory allows.
    """
    with open_text(path, compression, memory=memory) as stream:
        if not stream.peek(READ_AHEAD).lstrip().startswith(b"["):
            yield from _read_objects(path, compression, name, memory)
            return
        rows = enumerate(elements(stream, DECODER, longest(memory)), 1)
        while True:
            try:
                number, value = next(rows, (0, None))
            except ValueError as error:
                raise DataFileError(f"{path} is not valid JSON: {error}") from error
            if not number:
                return
            yield object_row(value, name, number)


def _read_objects(path: Path, compression: str | None, name: str, memory: int) -> Iterator[RawRow]:
    """Rows of a file of objects: one per line, or a table, or each over several lines."""
    most = memory // 2
    with open_text(path, compression, memory=memory) as stream:
        first, second = _first_lines(stream, most)
        one_per_line = _is_whole(first) and second
        text = None if one_per_line or not _may_go_on(first) else first + second + stream.read(most)
    if text is None:
        yield from read_jsonl(path, compression, name, memory)
        return
    if len(text) > most:
        raise DataFileError(
            f"{path} holds JSON of more than {most:,} bytes that is read as a whole, half of validation.memory_mb; "
            "raise it, or write one object per line"
        )
    number = 0
    try:
        for value in objects(text.decode("utf-8"), DECODER):
            rows = table_rows(value)
            for row in [value] if rows is None else rows:
                number += 1
                yield object_row(row, name, number)
    except ValueError as error:
        raise DataFileError(f"{path} is not valid JSON: {error}") from error


def _first_lines(stream: BinaryIO, most: int) -> tuple[bytes, bytes]:
    """The first line that is not blank with what is before it, and the next such line; no more than ``most`` bytes."""
    found = [b"", b""]
    for place in (0, 1):
        lines = []
        while sum(map(len, found)) < most and (line := stream.readline(most)):
            lines.append(line)
            if not line.isspace() or len(lines) > _BLANK_LINES:
                break
        found[place] = b"".join(lines)
    return found[0], found[1] if found[1].strip() else b""


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _may_go_on(line: bytes) -> bool:
    """Whether a line is an object, or the beginning of one that goes on in the next line."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.lstrip().startswith(b"{") and error.pos >= len(line.decode("utf-8", "replace").rstrip())
    except (ValueError, RecursionError):
        return False
    return line.lstrip().startswith(b"{")


def elements(stream: BinaryIO, decoder: json.JSONDecoder, most: int = MEMORY) -> Iterator[Any]:
    """Yield the elements of an array.

    Args:
        stream: At the beginning of the array, white space before it allowed.
        decoder: Reads one element.
        most: Characters of an element.

    Raises:
        ValueError: Not a JSON array, or an element that is too long or holds a number of too many digits; the message
            says what was expected, the line and column in the file, and after which element.
    """
    text = _Text(stream, most)
    number = 0
    text.expect("[")
    if text.next_mark() == "]":
        text.expect("]")
    else:
        while True:
            value = text.element(decoder, number)
            number += 1
            yield value
            if text.expect(",", "]", after=number) == "]":
                break
            text.next_mark()
    if text.next_mark():
        raise text.error("Extra data", text.at, number)


class _Text:
    """What was read and not yet given away, and where in the file it stands."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._most = stream, most
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self._line, self._column = 1, 1  # of the first character that is held
        self._text = ""
        self._ended = False
        self.at = 0

    def next_mark(self) -> str:
        """Skip white space; the character after it, empty at the end of the file."""
        while True:
            text, at = self._text, self.at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self.at = at
            if at < len(text) or not self._more(_READ):
                return text[at : at + 1] if at < len(text) else ""

    def expect(self, *marks: str, after: int = 0) -> str:
        """Skip white space and one of the marks; the mark."""
        found = self.next_mark()
        if found not in marks or not found:
            expected = " or ".join(f"'{mark}'" for mark in marks)
            raise self.error(f"Expecting {expected}{'' if found else ' before the end of the file'}", self.at, after)
        self.at += 1
        return found

    def element(self, decoder: json.JSONDecoder, number: int) -> Any:
        """Decode the value that begins here, reading on while it may go on."""
        wanted = _READ
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.at)
            except RecursionError:
                raise self.error("nested too deeply", self.at, number) from None
            except json.JSONDecodeError as error:
                open_end = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _CUT
                if not open_end or not self._more(wanted):
                    raise self.error(error.msg, error.pos, number) from None
            except ValueError as error:  # a number of thousands of digits, which Python does not read
                raise self.error(str(error).partition(";")[0], self.at, number) from None
            else:
                # Only what ends in a bracket or quote is whole for sure: 12 may go on as 12.5.
                if self._text[end - 1] in '}]"' or end < len(self._text) - _CUT or not self._more(wanted):
                    self.at = end
                    return value
            if len(self._text) - self.at > self._most:
                limit = (
                    f"row {number + 1} is longer than the {self._most:,} characters that validation.memory_mb allows"
                )
                raise self.error(limit, self.at, number)
            wanted *= 2  # a long element is decoded again only as often as it doubles

    def _more(self, size: int) -> bool:
        """Read on, if only to learn that nothing follows; what is held moves. False, and nothing moves, at the end."""
        if self._ended:
            return False
        self._forget()
        raw = self._stream.read(size)
        pending = len(self._decoder.getstate()[0])
        try:
            self._text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            place = self._bytes - pending + error.start + 1
            raise ValueError(f"byte {place} of the file, 0x{error.object[error.start]:02x}, is not UTF-8") from None
        self._bytes += len(raw)
        self._ended = not raw
        return True

    def _forget(self) -> None:
        self._line, self._column = self._place(self.at)
        self._text, self.at = self._text[self.at :], 0

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a character that is held."""
        lines = self._text.count("\n", 0, position)
        if not lines:
            return self._line, self._column + position
        return self._line + lines, position - self._text.rfind("\n", 0, position)

    def error(self, message: str, position: int, after: int) -> ValueError:
        """What is wrong, where."""
        line, column = self._place(position)
        where = f", after row {after}" if after else ""
        return ValueError(f"{message}: line {line} column {column}{where}")
