"""From source files to rows in the internal form, and to a small frame of facts that the suites judge.

The frame holds no texts, so that validation results hold none: the finding of the conversion, a key for duplicates,
and whether both answers say the same.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from preflow.data.conversion import RowProblem, to_demonstration, to_pair
from preflow.data.raw import RawRow, read_rows
from preflow.data.reading import DataSource, source_names
from preflow.data.rows import Demonstration, Message, Pair, Source, to_json
from preflow.data.splits import normalise
from preflow.data.store import Kind, SetAside
from preflow.observer import Observer

Part = Literal["train", "eval"]
#: The frame's ``problem`` of a row that was converted.
FINE = "fine"
_CONVERT: dict[Kind, Callable[[RawRow], Demonstration | Pair]] = {
    "demonstrations": to_demonstration,
    "preferences": to_pair,
}


@dataclass(slots=True)
class Rows:
    """All rows of one kind, before the suites have judged them.

    Attributes:
        kind: What they were read as.
        converted: Usable so far: where a row stands to which part of the recipe named it and the row.
        problems: Rows that could not be converted, by where they stand.
        facts: Columns of the frame, each with one value per row in the order of the files.
        has_eval: Whether the recipe names held-out data of its own.
    """

    kind: Kind
    has_eval: bool
    converted: dict[Source, tuple[Part, Demonstration | Pair]] = field(default_factory=dict)
    problems: dict[Source, SetAside] = field(default_factory=dict)
    facts: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in ("file", "row", "problem", "key", "same_answers")}
    )

    def __len__(self) -> int:
        return len(self.facts["row"])

    def frame(self) -> pd.DataFrame:
        """One line per row: file, row, problem, key (none for a row with a problem), same_answers (likewise)."""
        return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in self.facts.items()})


def read_kind(kind: Kind, train: Sequence[DataSource], evaluation: Sequence[DataSource], observer: Observer) -> Rows:
    """Read and convert every row of one kind.

    Args:
        kind: What the files hold.
        train: Files of the recipe's ``dataset``.
        evaluation: Files of its ``eval_dataset``; empty where it names none.
        observer: Told of progress, file by file.

    Raises:
        DataFileError: A file cannot be read.
    """
    rows = Rows(kind, has_eval=bool(evaluation))
    sources = [*train, *evaluation]
    for index, (source, name) in enumerate(zip(sources, source_names(sources), strict=True)):
        part: Part = "train" if index < len(train) else "eval"
        for raw in read_rows(source, name):
            _add(rows, raw, part)
        observer.progress(index + 1, len(sources), f"files of {kind} read")
    return rows


def _add(rows: Rows, raw: RawRow, part: Part) -> None:
    source = Source(raw.file, raw.row)
    try:
        row = _CONVERT[rows.kind](raw)
    except RowProblem as problem:
        rows.problems[source] = SetAside(rows.kind, source, problem.finding, problem.detail, raw.values)
        judged: tuple[str, str | None, bool | None] = (problem.finding, None, None)
    else:
        rows.converted[source] = (part, row)
        # Duplicates are sought within a part; a row that stands in both is a leak, and leaves training.
        judged = (FINE, f"{part}:{_content_key(row)}", _same_answers(row))
    for column, value in zip(rows.facts.values(), (raw.file, raw.row, *judged), strict=True):
        column.append(value)


def _content_key(row: Demonstration | Pair) -> str:
    """A digest of what the row says, whatever columns it was written in."""
    sides: tuple[Sequence[Message], ...]
    sides = (row.messages,) if isinstance(row, Demonstration) else (row.prompt, row.chosen, row.rejected)
    text = json.dumps([to_json(side) for side in sides], ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def _same_answers(row: Demonstration | Pair) -> bool:
    if isinstance(row, Demonstration):
        return False
    return normalise(row.chosen[0].content) == normalise(row.rejected[0].content)
