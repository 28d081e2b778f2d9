"""Counts and words: what a person and a program read about a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

from preflow.config import ValidationSettings
from preflow.data.store import Kind, SetAside

_NAMED_ROWS = 5
#: Fewer held-out pairs give an accuracy whose 95 % interval is wider than 0.26 (Wilson 1927, at 0.5).
FEW_HELD_OUT = 50
_LEAK = "leaks_into_evaluation"
_METRIC_NAMES: dict[Kind, str] = {"demonstrations": "demonstrations", "preferences": "pairs"}
_SETTING: dict[Kind, str] = {"demonstrations": "sft", "preferences": "dpo"}


def kind_report(rows_in: int, train: int, held_out: int, set_aside: Sequence[SetAside]) -> dict[str, Any]:
    """What became of the rows of one kind.

    Returns:
        Counts, and for every finding all row numbers by file.

    Raises:
        RuntimeError: Rows in are not rows used + rows set aside: an error of the program.
    """
    if rows_in != train + held_out + len(set_aside):
        raise RuntimeError(f"{rows_in} rows in, but {train} + {held_out} used and {len(set_aside)} set aside")
    findings: dict[str, dict[str, Any]] = {}
    for row in set_aside:
        entry = findings.setdefault(row.finding, {"count": 0, "rows": {}, "example": row.detail})
        entry["count"] += 1
        entry["rows"].setdefault(row.source.file, []).append(row.source.row)
    return {
        "rows_in": rows_in,
        "used": train + held_out,
        "train": train,
        "eval": held_out,
        "set_aside": len(set_aside),
        "findings": findings,
    }


def critical_findings(kind: Kind, report: Mapping[str, Any], settings: ValidationSettings) -> list[str]:
    """What makes the whole set of one kind unfit, in words."""
    rows_in, findings = report["rows_in"], report["findings"]
    if rows_in == 0:
        return [f"{kind}: the files hold no row at all"]
    missing = findings.get("missing_column")
    if missing and missing["count"] == rows_in:
        return [f"{kind}: a required column is missing in every row: {missing['example']}"]
    critical = []
    bad = report["set_aside"] - findings.get(_LEAK, {"count": 0})["count"]
    if bad / rows_in > settings.maximum_set_aside:
        critical.append(
            f"{kind}: {bad} of {rows_in} rows are set aside, more than the share of {settings.maximum_set_aside} that "
            f"validation.maximum_set_aside allows: {named_findings(report)}"
        )
    if report["used"] < settings.minimum_rows:
        critical.append(
            f"{kind}: {report['used']} usable rows, expected at least {settings.minimum_rows} "
            f"(validation.minimum_rows); set aside: {named_findings(report) or 'none'}"
        )
    elif report["train"] == 0:
        critical.append(
            f"{kind}: no row is left to train on ({report['eval']} held out, {report['set_aside']} set aside: "
            f"{named_findings(report) or 'none'}); lower {_SETTING[kind]}.eval_split or give more rows"
        )
    if kind == "preferences" and report["eval"] == 0:
        critical.append(
            "preferences: no pair is held out, so nothing could be measured; raise dpo.eval_split, give more rows, or "
            "name held-out pairs as dpo.eval_dataset"
        )
    return critical


def named_findings(report: Mapping[str, Any]) -> str:
    """Every finding with its count and its first rows as ``file:row``."""
    return "; ".join(
        f"{finding} {entry['count']} ({_first_rows(entry)})" for finding, entry in sorted(report["findings"].items())
    )


def summary(kind: Kind, report: Mapping[str, Any]) -> str:
    """One line for a person."""
    line = (
        f"{kind}: {report['rows_in']} rows in, {report['train']} to train on, {report['eval']} held out, "
        f"{report['set_aside']} set aside"
    )
    return f"{line}: {named_findings(report)}" if report["set_aside"] else line


def advice(reports: Mapping[str, Any], settings: ValidationSettings) -> list[str]:
    """What is worth knowing about a set that passes; also for one that was checked in an earlier run."""
    notes = []
    pairs = reports.get("preferences")
    if pairs is not None and 0 < pairs["eval"] < FEW_HELD_OUT:
        notes.append(
            f"only {pairs['eval']} pairs are held out: below {FEW_HELD_OUT} the 95 % interval of an accuracy near 0.5 "
            "is wider than 0.26 (Wilson 1927), so small gains cannot be seen; raise dpo.eval_split or give more pairs"
        )
    if pairs is not None and pairs["train"] < settings.recommended_pairs:
        notes.append(
            f"only {pairs['train']} pairs to train on: with fewer than {settings.recommended_pairs} "
            "(validation.recommended_pairs; 500 and more is the usual advice) DPO tends to learn accidents of wording"
        )
    shown = reports.get("demonstrations")
    if shown is not None and shown["eval"] == 0:
        notes.append("no demonstration is held out, so perplexity cannot be measured; raise sft.eval_split")
    return notes


def metrics(reports: Mapping[Kind, Mapping[str, Any]]) -> dict[str, float]:
    """The counts as flat metrics: ``data/pairs_in``, ``data/pairs_used``, ``data/pairs_blank_text``, ..."""
    values = {}
    for kind, report in reports.items():
        name = _METRIC_NAMES[kind]
        values[f"data/{name}_in"] = float(report["rows_in"])
        for count in ("used", "train", "eval", "set_aside"):
            values[f"data/{name}_{count}"] = float(report[count])
        for finding, entry in report["findings"].items():
            values[f"data/{name}_{finding}"] = float(entry["count"])
    return values


def _first_rows(entry: Mapping[str, Any]) -> str:
    rows = [f"{file}:{row}" for file, numbers in entry["rows"].items() for row in numbers]
    return ", ".join(rows[:_NAMED_ROWS]) + (", ..." if len(rows) > _NAMED_ROWS else "")
