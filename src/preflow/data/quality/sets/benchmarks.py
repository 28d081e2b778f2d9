"""Prompts of named benchmark files, which must not be trained on: whatever their column is called."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.chunks import Chunk
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import source_names
from preflow.data.quality.rows.row_checks import ChunkTask, measure_chunk
from preflow.data.quality.sets.column_store import Columns
from preflow.data.row_formats.row import Row
from preflow.errors import DataFileError

#: Columns that hold a prompt, the first that a row has.
PROMPT_COLUMNS = ("prompt", "question", "instruction", "problem", "query", "input", "text", "messages", "conversations")
_ROWS = 4096


def read_benchmarks(sources: Sequence[DataSource], folder: Path, settings: ValidationSettings) -> Columns:
    """Measure the prompts of benchmark files.

    Args:
        sources: The files.
        folder: Where their columns go; made where it is missing.
        settings: Thresholds.

    Raises:
        DataFileError: A file cannot be read, or its rows have no column that holds a prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = Columns("demonstrations", folder)
    for source, name in zip(sources, source_names(sources), strict=True):
        rows = _prompts(source, name, settings.memory_mb << 20)
        while batch := tuple(islice(rows, _ROWS)):
            number = len(columns.files)
            order = ChunkTask(
                "demonstrations", Chunk(name, "eval", rows=batch), number, columns.rows_file(number), settings
            )
            columns.append(name, measure_chunk(order))
    columns.close()
    return columns


def _prompts(source: DataSource, name: str, memory: int) -> Iterator[RawRow]:
    for raw in read_rows(source, name, memory):
        values = Row.of(raw, ReadingSettings()).values()
        column = next((column for column in PROMPT_COLUMNS if values.get(column)), None)
        if column is None or raw.malformed is not None:
            got = raw.malformed or f"columns {', '.join(list(raw.values)[:12]) or 'none'}"
            raise DataFileError(
                f"benchmark file {name}, row {raw.row}: got {got}; expected one of {', '.join(PROMPT_COLUMNS)}"
            )
        text = _first_text(values[column])
        if text is not None:
            yield RawRow(raw.file, raw.row, {"prompt": text, "completion": "-"})


def _first_text(value: Any) -> str | None:
    """The text of a prompt, or of the first user turn of a conversation."""
    if isinstance(value, str):
        return value
    turns = value if isinstance(value, list) else []
    for turn in turns:
        if isinstance(turn, dict) and turn.get("role", turn.get("from")) in {"user", "human"}:
            text = turn.get("content", turn.get("value"))
            return text if isinstance(text, str) else None
    return None
