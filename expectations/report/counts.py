"""Counts: what a program reads about the rows of one kind of data."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expectations.report.row_details import RowDetails
from expectations.row_facts import RowFacts
from expectations.set_measures import SetMeasures
from preflow.data.quality.rows.personal_data import masked
from preflow.data.quality.sets.similarity import parts_of
from preflow.data.row_formats.table import described
from preflow.findings import FINDINGS, setting_of

#: Examples of a finding, and how much of each text they show.
_EXAMPLES = 3
_WORDS = 8
_CHARACTERS = 80


def kind_report(
    facts: RowFacts,
    failing: Mapping[str, NDArray[np.int64]],
    reason: NDArray[np.int16],
    held: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    sets: SetMeasures,
) -> dict[str, Any]:
    """What became of the rows of one kind.

    Args:
        facts: Of all rows.
        failing: Finding to its rows.
        reason: Place in ``FINDINGS`` of the finding that quarantines a row, -1 for a row that is used; shape ``(N,)``.
        held: Rows that are held out, and those of them that are for validation, shape ``(N,)`` each.
        sets: Of the usable rows together.

    Returns:
        Counts, and for every finding its severity, all row numbers by file, and examples.

    Raises:
        RuntimeError: Rows in are not rows used + rows quarantined: an error of the program.
    """
    details = RowDetails(facts)
    (every, of_validation), validation = held, int(held[1].sum())
    held_out, train = int((every & ~of_validation).sum()), int(((reason < 0) & ~every).sum())
    by_reason = np.bincount(reason[reason >= 0], minlength=len(FINDINGS))
    used = train + held_out + validation
    if len(facts) != used + by_reason.sum():
        raise RuntimeError(f"{len(facts)} rows in, but {used} used and {by_reason.sum()} quarantined")
    findings = {
        name: _entry(facts, details, name, sets.rows.get(name, rows[:0]) if FINDINGS[name].scope == "set" else rows)
        | {"set_aside": int(by_reason[place])}
        for place, name in enumerate(FINDINGS)
        if (rows := failing.get(name)) is not None
    }
    return {
        "rows_in": len(facts),
        "used": used,
        "train": train,
        **({"validation": validation} if validation else {}),
        "eval": held_out,
        "set_aside": int(by_reason.sum()),
        "files": _files(facts, reason < 0),
        "findings": findings,
        "measures": sets.shown,
        "reading": _reading(facts),
    }


def _reading(facts: RowFacts) -> dict[str, Any]:
    """How the rows were read: formats, what was changed, what was not used, and files of other splits."""
    counts = facts.columns.reading
    columns: Counter[str] = Counter()
    for (_, column, _), rows in counts.used.most_common():
        columns[column] += rows
    return {
        "formats": {
            name: {
                "rows": rows,
                "how": described(name, [(own, known) for form, own, known in counts.used if form == name]),
            }
            for name, rows in counts.formats.most_common()
        },
        "columns": dict(columns),
        "changed": dict(sorted(counts.changed.items())),
        "unused_columns": dict(sorted(counts.columns.items())),
        "unused_turn_keys": dict(sorted(counts.turn_keys.items())),
        "first_rows": {name: source.rows for name, source in facts.columns.origins.items() if source.rows is not None},
        "left_out": sorted({name for source in facts.columns.origins.values() for name in source.left_out}),
    }


def _files(facts: RowFacts, used: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """By file: the part of the recipe that names it, its rows, and how many of them are used."""
    rows, fit = (facts.columns.count_by_source(chosen) for chosen in (np.ones(len(facts), bool), used))
    return {
        name: {"part": part, "rows_in": rows[name], "used": fit[name]} for name, part in facts.columns.names.items()
    }


def _entry(facts: RowFacts, details: RowDetails, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
    rows = np.sort(rows)
    setting = setting_of(name, facts.columns.kind)
    shown = masked if facts.settings.personal_data else str  # a report is uploaded, and read by many
    examples = []
    fine = facts.fine
    for row, values in zip(rows[:_EXAMPLES].tolist(), facts.columns.values(rows[:_EXAMPLES].tolist()), strict=True):
        if fine[row]:
            texts = [_cut(shown(part), whole=facts.settings.whole_examples) for part in parts_of(values)]
            detail = details.text(name, row, values)
        else:
            texts, detail = [], str(values["detail"])
        examples.append({"at": f"{values['file']}:{values['row']}", "detail": shown(detail), "texts": texts})
    return {
        "severity": facts.settings.severity_of(name),
        "what": FINDINGS[name].what,
        "setting": setting,
        "threshold": facts.token_limit if setting == "max_seq_length" else getattr(facts.settings, setting or "", None),
        "count": len(rows),
        "rows": facts.columns.by_file(rows),
        "example": examples[0]["detail"] if examples else FINDINGS[name].what,
        "examples": examples,
    }


def _cut(text: str, *, whole: bool) -> str:
    if whole:
        return text
    words = text.split()
    return " ".join(words[:_WORDS])[:_CHARACTERS] + (" …" if len(words) > _WORDS else "")
