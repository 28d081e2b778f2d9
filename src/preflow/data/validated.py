"""The validate stage's folder: clean rows split into training and evaluation, the quarantine, and why.

    demonstrations.train.jsonl  demonstrations.eval.jsonl   rows in the internal form, with file name and row number
    preferences.train.jsonl     preferences.eval.jsonl
    demonstrations.validation.jsonl  preferences.validation.jsonl   where rows are held out to choose settings by
    quarantine.jsonl            every quarantined row: kind, file, row, finding, detail, measure that failed, the row
    report.json                 verdict, notes, and by kind and finding the numbers of all rows concerned
    report.html                 the same for people, in one page that needs nothing else
    metrics.json                the counts as flat floats

Nothing in it depends on where the source files lie.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from preflow.artifacts import Artifact
from preflow.data.rows import Demonstration, Pair, Source
from preflow.data.text import row_json

#: Training rows, test rows (``eval``: what is reported and decided on), rows by which settings are chosen.
Split = Literal["train", "eval", "validation"]
DataKind = Literal["demonstrations", "preferences"]
QUARANTINE = "quarantine.jsonl"
REPORT = "report.json"
Row = TypeVar("Row", Demonstration, Pair)


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that does not pass.

    Attributes:
        kind: What the row was read as.
        source: Where it stands.
        finding: What is wrong, by name.
        detail: What was got and what was expected.
        values: The row itself with all its columns, so that it can be fixed and used as input again.
        measure: The number that failed its threshold; none where there is none.
    """

    kind: DataKind
    source: Source
    finding: str
    detail: str
    values: dict[str, Any]
    measure: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One line of the quarantine file."""
        return {
            "kind": self.kind,
            "file": self.source.file,
            "row": self.source.row,
            "finding": self.finding,
            "detail": self.detail,
            "measure": self.measure,
            "values": self.values,
        }


def rows_file(kind: DataKind, side: Split) -> str:
    """Name of the file that holds the rows of one kind and side."""
    return f"{kind}.{side}.jsonl"


def write_rows(path: Path, rows: Iterable[Demonstration | Pair | QuarantinedRow]) -> None:
    """Write rows, one JSON object per line.

    Text that no encoding can write (a lone surrogate in a quarantined row) becomes its JSON escape, so that it reads
    back as it was.
    """
    with path.open("wb") as handle:
        handle.writelines(row_json(row.to_json()) for row in rows)


def load_demonstrations(artifact: Artifact, side: Split) -> list[Demonstration]:
    """The validated demonstrations of one side; empty where the recipe has none."""
    return _load(artifact.file(rows_file("demonstrations", side)), Demonstration.from_json)


def load_pairs(artifact: Artifact, side: Split) -> list[Pair]:
    """The validated pairs of one side; empty where the recipe has none."""
    return _load(artifact.file(rows_file("preferences", side)), Pair.from_json)


def has_rows(artifact: Artifact, kind: DataKind, split: Split) -> bool:
    """Whether there is such a file: training and test rows always have one, validation rows where there are any."""
    return artifact.file(rows_file(kind, split)).is_file()


def selection_split(artifact: Artifact, kind: DataKind) -> Split:
    """The held-out rows by which a rate, a checkpoint or the end of a training may be chosen.

    Validation rows; where the recipe sets none apart, or none fell to them, the test rows: what is measured on them
    afterwards is then too favourable.
    """
    return "validation" if has_rows(artifact, kind, "validation") else "eval"


def each_pair(artifact: Artifact, side: Split) -> Iterator[Pair]:
    """What ``load_pairs`` gives, one after the other: a large set is never whole in memory."""
    with artifact.file(rows_file("preferences", side)).open(encoding="utf-8") as handle:
        for line in handle:
            yield Pair.from_json(json.loads(line))


def _load(path: Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    with path.open(encoding="utf-8") as handle:
        return [parse(json.loads(line)) for line in handle]
