"""Words: what a person reads about a data set."""

from collections.abc import Mapping
from typing import Any

from preflow.config.validation import ValidationSettings
from preflow.data.row_formats.row import CHANGED
from preflow.data.validated import DataKind
from preflow.findings import FINDINGS

#: The report for people, in the validate stage's folder.
PAGE = "report.html"
_NAMED_ROWS = 5
_NAMED_COLUMNS = 12
#: Fewer held-out pairs give an accuracy whose 95 % interval is wider than 0.26 (Wilson 1927, at 0.5).
FEW_HELD_OUT = 50
_LEAKS = ("leaks_into_evaluation", "nearly_leaks_into_evaluation")
_METRIC_NAMES: dict[DataKind, str] = {"demonstrations": "demonstrations", "preferences": "pairs"}
_SETTING: dict[DataKind, str] = {"demonstrations": "sft", "preferences": "dpo"}


def reading_lines(kind: DataKind, reading: Mapping[str, Any]) -> list[str]:
    """How rows were read, in words: a line for each format, and for what was changed, not used and left out."""
    lines = [
        f"{name} {_METRIC_NAMES[kind]}: {entry['how']} ({entry['rows']:,} rows)"
        for name, entry in reading["formats"].items()
    ]
    if reading["columns"]:
        lines.append(f"used: columns {_counted(reading['columns'])}")
    if reading["changed"]:
        lines.append(f"changed: {_counted(reading['changed'], CHANGED)}")
    unused = [
        f"{what} {_counted(reading[key])}"
        for what, key in (("columns", "unused_columns"), ("keys of turns", "unused_turn_keys"))
        if reading[key]
    ]
    if unused:
        lines.append(f"not used: {'; '.join(unused)}")
    if reading["first_rows"]:
        files = ", ".join(f"{rows:,} of {name}" for name, rows in reading["first_rows"].items())
        lines.append(f"at most the first rows were read, as the recipe's rows says: {files}")
    if reading["left_out"]:
        named = ", ".join(reading["left_out"][:_NAMED_ROWS]) + (
            ", ..." if len(reading["left_out"]) > _NAMED_ROWS else ""
        )
        lines.append(f"left out, as other splits of the folder: {named}")
    return lines


def _counted(counts: Mapping[str, int], words: Mapping[str, str] | None = None) -> str:
    shown = [f"{(words or {}).get(name, name or '(no name)')} ({rows:,} rows)" for name, rows in counts.items()]
    more = len(shown) - _NAMED_COLUMNS
    return ", ".join(shown[:_NAMED_COLUMNS]) + (f" and {more:,} more" if more > 0 else "")


def critical_findings(kind: DataKind, report: Mapping[str, Any], settings: ValidationSettings) -> list[str]:
    """What makes the whole set of one kind unfit, in words."""
    rows_in, findings = report["rows_in"], report["findings"]
    if rows_in == 0:
        return [f"{kind}: the files hold no row at all"]
    missing = findings.get("missing_column")
    if missing and missing["count"] == rows_in:
        return [f"{kind}: a required column is missing in every row: {missing['example']}"]
    critical = [f"{kind}: {line}" for line in _empty_files(report, _SETTING[kind])]
    bad = report["set_aside"] - sum(findings[name]["set_aside"] for name in _LEAKS if name in findings)
    if bad / rows_in > settings.maximum_set_aside:
        critical.append(
            f"{kind}: {bad} of {rows_in} rows are quarantined, more than the share of {settings.maximum_set_aside} "
            f"that validation.maximum_set_aside allows: {named_findings(report)}"
        )
    if report["used"] < settings.minimum_rows:
        critical.append(
            f"{kind}: {report['used']} usable rows, expected at least {settings.minimum_rows} "
            f"(validation.minimum_rows); quarantined: {named_findings(report) or 'none'}"
        )
    elif report["train"] == 0:
        critical.append(
            f"{kind}: no row is left to train on ({report['eval']} held out, {report['set_aside']} quarantined: "
            f"{named_findings(report) or 'none'}); lower {_SETTING[kind]}.eval_split or give more rows"
        )
    if kind == "preferences" and report["eval"] == 0:
        critical.append(
            "preferences: no pair is held out, so nothing could be measured; raise dpo.eval_split, give more rows, or "
            "name held-out pairs as dpo.eval_dataset"
        )
    critical += [
        f"{kind}: {line}"
        for name, line in _lines(report, severity="stop")
        if name != "too_few_rows"  # reported above, with the quarantined rows
    ]
    return critical


def _empty_files(report: Mapping[str, Any], stage: str) -> list[str]:
    """Files without a row, and held-out data of which nothing is left: a large file beside them must not hide them."""
    files = report["files"]
    lines = [f"{name} holds no row at all; give rows or leave it out" for name, f in files.items() if not f["rows_in"]]
    held_out = [f for f in files.values() if f["part"] == "eval"]
    if sum(f["rows_in"] for f in held_out) and not sum(f["used"] for f in held_out):
        rows = sum(f["rows_in"] for f in held_out)
        lines.append(f"none of the {rows} rows of {stage}.eval_dataset is usable: {named_findings(report)}")
    return lines


def _lines(report: Mapping[str, Any], severity: str) -> list[tuple[str, str]]:
    """What the findings of one severity say, by name."""
    return [
        (name, _line(name, entry, report))
        for name, entry in report["findings"].items()
        if entry["severity"] == severity
    ]


def _line(name: str, entry: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    where = f" {entry['count']} ({_first_rows(entry)})" if entry["count"] else ""
    measured = measure_text(report["measures"].get(name))
    limit = threshold_text(entry) if FINDINGS[name].scope == "set" else ""
    return f"{name}{where}: {entry['what']}{'; ' + measured if measured else ''}{f' ({limit})' if limit else ''}"


def threshold_text(entry: Mapping[str, Any]) -> str:
    """The threshold of a finding with the name that a recipe gives it; empty where it has none."""
    if entry["threshold"] is None:
        return ""
    section = "validation." if entry["setting"] in ValidationSettings.model_fields else ""
    return f"{section}{entry['setting']}: {entry['threshold']}"


def measure_text(measured: Any) -> str:
    """A measure of the set in words."""
    cues = [measured] if isinstance(measured, dict) and "cue" in measured else measured
    if isinstance(cues, list):
        strongest = sorted(cues, key=lambda cue: -cue["low"])[:3]
        return "; ".join(
            f"'{cue['cue']}' marks {cue['side']} in {cue['value']:.2f} [{cue['low']:.2f}, {cue['high']:.2f}] of "
            f"{cue['pairs']} pairs"
            for cue in strongest
        )
    if not measured:
        return ""
    return ", ".join(f"{key} {value}" for key, value in measured.items())


def named_findings(report: Mapping[str, Any]) -> str:
    """Every finding with its count and its first rows as ``file:row``."""
    return "; ".join(
        f"{finding} {entry['count']} ({_first_rows(entry)})"
        for finding, entry in sorted(report["findings"].items())
        if entry["set_aside"]
    )


def summary(kind: DataKind, report: Mapping[str, Any]) -> str:
    """One line for a person."""
    choosing = f"{report['validation']} for validation, " if "validation" in report else ""
    line = (
        f"{kind}: {report['rows_in']} rows in, {report['train']} to train on, {choosing}{report['eval']} held out, "
        f"{report['set_aside']} quarantined"
    )
    line = f"{line}: {named_findings(report)}" if report["set_aside"] else line
    return "; ".join([line, *reading_lines(kind, report["reading"])])


def remarks(reports: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """What is worth knowing about a set besides its findings."""
    notes = []
    pairs = reports.get("preferences")
    if pairs is not None and 0 < pairs["eval"] < FEW_HELD_OUT:
        notes.append(
            f"only {pairs['eval']} pairs are held out: below {FEW_HELD_OUT} the 95 % interval of an accuracy near 0.5 "
            "is wider than 0.26 (Wilson 1927), so small gains cannot be seen; raise dpo.eval_split or give more pairs"
        )
    shown = reports.get("demonstrations")
    if shown is not None and shown["eval"] == 0:
        notes.append(
            "no demonstration is held out, so perplexity cannot be measured; raise sft.eval_split, or name held-out "
            "rows as sft.eval_dataset"
        )
    return notes


def remedies(reports: Mapping[str, Any]) -> list[str]:
    """What is worth knowing about a set that passes; also for one that was checked in an earlier run."""
    kinds: tuple[DataKind, ...] = ("demonstrations", "preferences")
    warned = [f"{kind}: {line}" for kind in kinds if kind in reports for _, line in _lines(reports[kind], "warn")]
    return [*remarks(reports), *warned]


def finding_rows(reports: Mapping[str, Any]) -> list[dict[str, str]]:
    """One line per finding, the worst first: for a table that people read."""
    order = ("stop", "set_aside", "warn")
    kinds: tuple[DataKind, ...] = ("demonstrations", "preferences")
    lines = [(kind, name, entry) for kind in kinds for name, entry in reports.get(kind, {}).get("findings", {}).items()]
    return [
        {
            "data": kind,
            "finding": name,
            "severity": entry["severity"],
            "rows": f"{entry['count']:,}" if entry["count"] else "the whole set",
            "first": _first_rows(entry),
            "what": entry["what"],
        }
        for kind, name, entry in sorted(lines, key=lambda line: order.index(line[2]["severity"]))
    ]


def metrics(reports: Mapping[DataKind, Mapping[str, Any]]) -> dict[str, float]:
    """The counts as flat metrics: ``data/pairs_in``, ``data/pairs_used``, ``data/pairs_blank_text``, ..."""
    values = {}
    for kind, report in reports.items():
        name = _METRIC_NAMES[kind]
        values[f"data/{name}_in"] = float(report["rows_in"])
        for count in ("used", "train", "validation", "eval", "set_aside"):
            if count not in report:
                continue
            values[f"data/{name}_{count}"] = float(report[count])
        for finding, entry in report["findings"].items():
            values[f"data/{name}_{finding}"] = float(entry["count"])
    return values


def _first_rows(entry: Mapping[str, Any]) -> str:
    rows = [f"{file}:{row}" for file, numbers in entry["rows"].items() for row in numbers]
    return ", ".join(rows[:_NAMED_ROWS]) + (", ..." if len(rows) > _NAMED_ROWS else "")
