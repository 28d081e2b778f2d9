"""The facts of all rows of one kind, column by column on disk, and the rows themselves in the internal form.

A column is read when it is needed, so that memory holds a few numbers per row whatever the length of the texts.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preflow.data.files.raw_rows import DataSource
from preflow.data.quality.rows.ingest import ReadingCounts
from preflow.data.quality.rows.row_checks import ChunkMeasures
from preflow.data.rows import Source
from preflow.data.validated import DataKind

_OPEN_FILES = 200


@dataclass(slots=True)
class Columns:
    """All rows of one kind.

    Attributes:
        kind: What they were read as.
        folder: Where columns and rows lie.
        files: Name of the source of each chunk.
        sizes: Rows of each chunk.
        sources: Rows by the value of their column ``source``.
        names: Name of every source, also of one without a row, and the part of the recipe that names it.
        origins: The same sources, by name.
        total: Rows.
        size: Bytes of all rows.
        reading: How the rows were read.
    """

    kind: DataKind
    folder: Path
    files: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    total: int = 0
    size: int = 0
    names: dict[str, str] = field(default_factory=dict)
    origins: dict[str, DataSource] = field(default_factory=dict)
    reading: ReadingCounts = field(default_factory=ReadingCounts)
    _types: dict[str, Any] = field(default_factory=dict)
    _parts: dict[str, int] = field(default_factory=dict)
    _open: dict[str, BinaryIO] = field(default_factory=dict)

    @property
    def has_eval(self) -> bool:
        """Whether the recipe names held-out data."""
        return "eval" in self.names.values()

    def count_by_source(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        """How many of the chosen rows, shape ``(N,)``, each source holds; 0 for one that holds none."""
        found = dict.fromkeys(self.names, 0)
        for file, part in zip(self.files, np.split(chosen, np.cumsum(self.sizes)[:-1]), strict=True):
            if file in found:
                found[file] += int(part.sum())
        return found

    def rows_file(self, chunk: int) -> Path:
        """Where a chunk's rows lie."""
        return self.folder / f"rows-{chunk:06d}.jsonl"

    def append(self, file: str, found: ChunkMeasures) -> None:
        """Add a chunk's columns."""
        for name, values in found.columns.items():
            parts = values if values.ndim == 2 else values[np.newaxis]
            self._types[name] = values.dtype
            self._parts[name] = len(parts)
            for number, part in enumerate(parts):
                self._handle(f"{name}.{number}").write(np.ascontiguousarray(part).tobytes())
        self.files.append(file)
        self.sizes.append(len(found.columns["row"]))
        self.sources.update(found.sources)
        self.reading.add(found.reading)
        self.total += self.sizes[-1]
        self.size += found.size

    def _handle(self, name: str) -> BinaryIO:
        if name not in self._open:
            self._open[name] = (self.folder / name).open("wb")
        return self._open[name]

    def close(self) -> None:
        """Write what waits; called when the last chunk was added."""
        for handle in self._open.values():
            handle.close()
        self._open.clear()

    def get(self, name: str, part: int = 0, rows: slice | None = None) -> NDArray[Any]:
        """A column, shape ``(N,)``, or some rows of it that stand together."""
        file, kind = self.folder / f"{name}.{part}", self._types[name]
        if rows is None:
            return np.fromfile(file, dtype=kind)
        return np.fromfile(file, dtype=kind, offset=rows.start * kind.itemsize, count=rows.stop - rows.start)

    def parts(self, name: str) -> int:
        """Of how many parts a column consists."""
        return self._parts.get(name, 0)

    def source(self, row: int) -> Source:
        """File and number of a row."""
        chunk = int(np.searchsorted(np.cumsum(self.sizes), row, side="right"))
        return Source(self.files[chunk], int(self.get("row", rows=slice(row, row + 1))[0]))

    def by_file(self, rows: NDArray[np.int64]) -> dict[str, list[int]]:
        """Row numbers by file, in the order of the files."""
        numbers = self.get("row")[rows]
        ends = np.cumsum(self.sizes)
        chunks = np.searchsorted(ends, rows, side="right")
        found: dict[str, list[int]] = {}
        edges = np.flatnonzero(np.diff(chunks)) + 1
        for start, stop in zip([0, *edges], [*edges, len(rows)], strict=True):
            if stop > start:
                found.setdefault(self.files[chunks[start]], []).extend(numbers[start:stop].tolist())
        return found

    def values(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Some rows as they were written, in the order asked."""
        offsets, chunks = self.get("offset"), self.get("chunk")
        with ExitStack() as stack:
            handles: dict[int, BinaryIO] = {}
            for row in rows:
                chunk = int(chunks[row])
                if chunk not in handles:
                    if len(handles) >= _OPEN_FILES:
                        stack.close()
                        handles.clear()
                    handles[chunk] = stack.enter_context(self.rows_file(chunk).open("rb"))
                handles[chunk].seek(int(offsets[row]))
                yield json.loads(handles[chunk].readline())

    def lines(self) -> Iterator[bytes]:
        """Every row, one line each, in order."""
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[bytes]]:
        """Every row, one line each, in order, as many at a time as were read together."""
        for chunk in range(len(self.files)):
            with self.rows_file(chunk).open("rb") as handle:
                yield handle.readlines()
