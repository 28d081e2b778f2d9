"""A run does not depend on a reader of its output: a killed worker or a closed terminal ends no training."""

import errno
import io
import os
import sys
from typing import Any, TextIO

from rich.console import Console

#: What writing fails with when a pipe's reader has gone, or a terminal was closed.
_NO_READER = (errno.EPIPE, errno.EIO)


def outlive_readers() -> None:
    """From now on, output that has lost its reader is dropped.

    Consoles of rich end the process on a broken pipe, and libraries write progress bars that raise: both are in any
    part of a run, Prefect's log included, so the streams and rich's own answer to a broken pipe are replaced.
    """
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    Console.on_broken_pipe = _drop_output  # type: ignore[method-assign, assignment]


class LastingFile(io.FileIO):
    """The file of a stream, whose writes go nowhere once the reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._stream = stream  # would close its file if it were collected

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NO_READER:
                raise
            _to_nowhere(self.fileno())
            return memoryview(data).nbytes


def _lasting(stream: TextIO) -> TextIO:
    """The same stream with lasting writes; streams that are no files of the system stay."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), LastingFile):
        return stream
    stream.flush()
    buffer = io.BufferedWriter(LastingFile(stream))
    return io.TextIOWrapper(buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=True)


def _drop_output(console: Console) -> None:
    """What a console of rich does without a reader: go on, in silence."""
    console.quiet = True
    for stream in (sys.stdout, sys.stderr, console.file):
        try:
            stream.flush()
        except OSError as error:
            if error.errno not in _NO_READER:
                raise
            _to_nowhere(stream.fileno())


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
