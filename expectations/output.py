"""Every row to its place: training, evaluation, or the quarantine with the reason."""

import json
from contextlib import nullcontext
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expectations.report.row_details import RowDetails
from expectations.row_facts import RowFacts
from preflow.data.files.original_rows import OriginalRows
from preflow.data.rows import Source
from preflow.data.text import row_json
from preflow.data.validated import QUARANTINE, DataKind, QuarantinedRow, rows_file
from preflow.findings import FINDINGS

_NAMES = tuple(FINDINGS)


def write_kind(
    facts: RowFacts, reason: NDArray[np.int16], held: NDArray[np.bool_], validation: NDArray[np.bool_], out: Path
) -> None:
    """Write the rows of one kind; quarantined rows are added to their file.

    Validation rows have a file where there are any.

    Args:
        facts: Of all rows.
        reason: Place in ``FINDINGS`` of the finding that quarantines a row, -1 for a row that is used; shape ``(N,)``.
        held: Rows that are held out, shape ``(N,)``.
        validation: Those of them that are for validation, shape ``(N,)``.
        out: The validate stage's folder.
    """
    kind, details, originals = facts.columns.kind, RowDetails(facts), OriginalRows(facts.columns.origins)
    fine, made = facts.fine, facts.columns.get("made").astype(bool)
    chosen_by = out / rows_file(kind, "validation")
    chosen_by.unlink(missing_ok=True)  # what a killed run left
    with (
        (out / rows_file(kind, "train")).open("wb") as train,
        (out / rows_file(kind, "eval")).open("wb") as evaluation,
        chosen_by.open("wb") if validation.any() else nullcontext() as choosing,
        (out / QUARANTINE).open("ab") as quarantine,
    ):
        start = 0
        for lines in facts.columns.blocks():
            rows = slice(start, start + len(lines))
            used, evaluates = reason[rows] < 0, held[rows]
            train.writelines(compress(lines, (used & ~evaluates).tolist()))
            evaluation.writelines(compress(lines, (used & evaluates & ~validation[rows]).tolist()))
            if choosing is not None:
                choosing.writelines(compress(lines, (used & validation[rows]).tolist()))
            for at in np.flatnonzero(~used).tolist():
                row = start + at
                if fine[row]:
                    files = None if made[row] else originals
                    quarantine.write(_quarantined(details, files, _NAMES[reason[row]], row, lines[at], kind))
                else:  # was written in its final form when it could not be converted
                    quarantine.write(lines[at])
            start = rows.stop


def _quarantined(
    details: RowDetails, originals: OriginalRows | None, finding: str, row: int, line: bytes, kind: DataKind
) -> bytes:
    found = json.loads(line)
    aside = QuarantinedRow(
        kind,
        Source(found["file"], found["row"]),
        finding,
        details.text(finding, row, found),
        originals.values(found["file"], found["row"]) if originals is not None else _own_columns(found),
        details.measure(finding, row),
    )
    return row_json(aside.to_json())


def _own_columns(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that was made of several rows, or of one of several answers: no row of the file is it."""
    return {name: value for name, value in found.items() if name not in {"file", "row"}}
