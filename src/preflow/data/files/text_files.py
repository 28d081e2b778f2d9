"""Opening text files, compressed or not, and one error for whatever reading a file can raise."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from preflow.errors import DataFileError
from preflow.formats import COMPRESSIONS, FORMATS

#: Bytes that are read ahead.
READ_AHEAD = 1 << 20
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
            for line in stream:
                number += line.endswith(b"\n")
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException):
        return number
    return number


def open_text(path: Path, compression: str | None, ahead: int = READ_AHEAD) -> io.BufferedReader:
    """Open a text file for reading bytes, decompressed, its byte order mark skipped.

    Raises:
        DataFileError: The first bytes are those of another format than the name says.
    """
    stream = io.BufferedReader(pa.input_stream(str(path), compression=compression), ahead)
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
