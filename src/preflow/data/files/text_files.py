"""Opening text files, compressed or not, and one error for whatever reading a file can raise."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from preflow.errors import DataFileError
from preflow.formats import COMPRESSIONS, FORMATS

#: Bytes that are read ahead.
READ_AHEAD = 1 << 20
#: Bytes of memory for rows where no settings are at hand: the default of ``validation.memory_mb``.
MEMORY = 1 << 30
#: Share of the memory that one line, value or batch of rows may take, and a size that is allowed in any case.
_SHARE, _ALWAYS = 8, 4 << 20
#: Unpacked bytes per packed byte above which a file that unpacks to more than the memory is no data but a trap.
MOST_UNPACKED = 200
_HEAD = 80
#: The same while the readable lines of a broken file are counted.
_READ_AHEAD_OF_FAULT = 256
_COMPRESSION_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
#: First bytes of files whose name says that they are text.
_BINARY_HEADS = {
    **{form.magic: f"a {form.name.capitalize()} file" for form in FORMATS if form.magic is not None},
    **{_COMPRESSION_MAGIC[name]: f"{name}-compressed" for name in COMPRESSIONS.values()},
    b"PK\x03\x04": "a zip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_BOM = b"\xef\xbb\xbf"


@contextmanager
def data_file_errors(path: Path, compression: str | None = None) -> Iterator[list[int]]:
    """Turn whatever a reader of a file can raise into one clear error.

    Args:
        path: The file.
        compression: Its compression. Of a compressed file the readable lines are counted, as it is decompressed far
            ahead of the reader.

    Yields:
        A list of one number, the last row that was read, which the reader keeps up to date.

    Raises:
        DataFileError: The file cannot be read; names the file, the last good row and the reason.
    """
    after = [0]
    try:
        yield after
    except DataFileError:
        raise
    except (OSError, EOFError, ValueError, ArithmeticError, LookupError, zlib.error, pa.ArrowException) as error:
        where = f" after row {after[0]}" if after[0] else ""
        if compression is not None and (lines := _readable_lines(path, compression)):
            where = f" after line {lines}"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataFileError(f"data file {path} cannot be read{where}: {reason}") from error


def _readable_lines(path: Path, compression: str) -> int:
    """About how many lines of a broken file can be read; never more."""
    number = 0
    try:
        with open_text(path, compression, _READ_AHEAD_OF_FAULT) as stream:
            while line := stream.readline(READ_AHEAD):
                number += line.endswith(b"\n")
    except (DataFileError, OSError, EOFError, ValueError, zlib.error, pa.ArrowException):
        return number
    return number


def longest(memory: int) -> int:
    """Bytes of the longest line or value that is read within so many bytes of memory."""
    return max(memory // _SHARE, _ALWAYS)


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that is longer than the memory allows: how it begins, and its size."""

    head: bytes
    size: int

    def problem(self, limit: int) -> str:
        """What is wrong with it, in words."""
        return f"the line has {self.size:,} bytes, and validation.memory_mb allows {limit:,}; raise it or cut the line"

    @property
    def text(self) -> str:
        """How it begins."""
        return self.head.decode("utf-8", "backslashreplace") + "…"


def text_lines(stream: BinaryIO, limit: int) -> Iterator[bytes | LongLine]:
    """The lines of a file, none of which takes more than ``limit`` bytes of memory."""
    while line := stream.readline(limit + 1):
        yield line if len(line) <= limit else _passed_over(stream, line)


def text_blocks(stream: BinaryIO, size: int, limit: int) -> Iterator[bytes | LongLine]:
    """The same, whole lines of about ``size`` bytes at a time; a long line stands alone."""
    while block := stream.read(size):
        rest = b"" if block.endswith(b"\n") else stream.readline(limit + 1)
        begin = block.rfind(b"\n") + 1
        if len(block) - begin + len(rest) <= limit:
            yield block + rest if rest else block
            continue
        if begin:
            yield block[:begin]
        yield _passed_over(stream, block[begin:] + rest)


def _passed_over(stream: BinaryIO, line: bytes) -> LongLine:
    """A line that is too long, of which the rest is read and forgotten."""
    size, ended = len(line), line.endswith(b"\n")
    while not ended and (rest := stream.readline(READ_AHEAD)):
        size, ended = size + len(rest), rest.endswith(b"\n")
    return LongLine(line[:_HEAD], size)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, until it turns out to be a trap."""

    def __init__(self, path: Path, stream: Any, memory: int) -> None:
        self._path, self._stream, self._memory = path, stream, memory
        self._packed, self._size = path.stat().st_size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack on."""
        read = self._stream.read(len(buffer))
        buffer[: len(read)] = read
        self._size += len(read)
        if self._size > max(self._memory, MOST_UNPACKED * self._packed):
            raise DataFileError(
                f"{self._path} unpacks to more than {MOST_UNPACKED} times its {self._packed:,} bytes and more than "
                f"{self._memory >> 20:,} MiB (validation.memory_mb), as no rows do; give it unpacked if it is right"
            )
        return len(read)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._stream.close()
        super().close()


def open_text(path: Path, compression: str | None, ahead: int = READ_AHEAD, memory: int = MEMORY) -> io.BufferedReader:
    """Open a text file for reading bytes, decompressed, its byte order mark skipped.

    Raises:
        DataFileError: The first bytes are those of another format than the name says; or, while it is read, a small
            file unpacks to more than the memory.
    """
    opened = pa.input_stream(str(path), compression=compression)
    stream = io.BufferedReader(opened if compression is None else _Unpacked(path, opened, memory), ahead)
    head = stream.peek(4)[:4]
    for mark, what in _BINARY_HEADS.items():
        if head.startswith(mark):
            stream.close()
            raise DataFileError(
                f"{path} is {what}, not {path.suffix} text as its name says; rename or convert it (text must be UTF-8)"
            )
    if head.startswith(_BOM):
        stream.read(len(_BOM))
    return stream


def mark_bytes(path: Path) -> int:
    """Bytes of a UTF-8 byte order mark, which ``open_text`` skips."""
    with path.open("rb") as stream:
        return len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
