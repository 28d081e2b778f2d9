"""Data validation: bad rows are quarantined by name, an unfit set stops the run, the others are split and written."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
from numpy.typing import NDArray

from expectations.output import write_kind
from expectations.report.counts import kind_report
from expectations.report.page import page
from expectations.report.present_names import names_of
from expectations.report.summary import PAGE, critical_findings, metrics, remarks, summary
from expectations.row_facts import RowFacts, compare_rows, nearly_leaking, read_kind
from expectations.set_measures import measure_set
from expectations.suites import demonstrations, preferences
from expectations.suites.running import SuiteResult, as_result, run_suite
from expectations.suites.shared import lengths_suite, split_suite
from preflow.artifacts import SCRATCH, WITHHELD, write_json
from preflow.config.base import Rendering
from preflow.config.validation import ValidationSettings
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import unchanged
from preflow.data.quality.sets.benchmarks import read_benchmarks
from preflow.data.quality.sets.column_store import Columns
from preflow.data.splits import SplitRows, assign_splits, validation_rows
from preflow.data.validated import QUARANTINE, REPORT, DataKind, Split, rows_file
from preflow.errors import DataUnfitError
from preflow.findings import FINDINGS
from preflow.observer import Observer
from preflow.specs import ValidateSpec

LEAK, NEAR_LEAK = "leaks_into_evaluation", "nearly_leaks_into_evaluation"
_Suite = Callable[[ValidationSettings], gx.ExpectationSuite]
_SUITES: dict[DataKind, tuple[_Suite, _Suite]] = {
    "demonstrations": (demonstrations.rows_suite, demonstrations.set_suite),
    "preferences": (preferences.rows_suite, preferences.set_suite),
}
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class JudgedRows:
    """The rows of one kind after their suites.

    Attributes:
        facts: What is known of each row.
        share: Share of prompts to hold out; none where the recipe names held-out data.
        validation_share: Share of prompts to hold out for validation.
        outcomes: What the suites found.
        reason: For each row the place in ``FINDINGS`` of the finding that quarantines it, -1 for a row that is used;
            shape ``(N,)``.
        held: Rows that are held out, shape ``(N,)``.
        validation: Those of them that are for validation and not for the test, shape ``(N,)``.
    """

    facts: RowFacts
    share: float | None
    validation_share: float
    outcomes: list[SuiteResult] = field(default_factory=list)
    reason: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    held: Bools = field(default_factory=lambda: np.zeros(0, bool))
    validation: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def judge(self, outcome: SuiteResult) -> None:
        """Take what a suite found; a row keeps the first finding that quarantined it."""
        self.outcomes.append(outcome)
        for place, name in enumerate(FINDINGS):
            if name in outcome.failing and self.facts.settings.severity_of(name) in {"set_aside", "stop"}:
                rows = outcome.failing[name]
                self.reason[rows[self.reason[rows] < 0]] = place

    @property
    def used(self) -> Bools:
        """Rows that no finding quarantines."""
        return np.asarray(self.reason < 0)

    @property
    def failing(self) -> dict[str, NDArray[np.int64]]:
        """Finding to its rows, from all suites."""
        return {name: rows for outcome in self.outcomes for name, rows in outcome.failing.items()}


def run_gate(spec: ValidateSpec, out: Path, observer: Observer) -> None:
    """Check all rows of a recipe, quarantine failing rows, split the rest, and write the validate stage's folder.

    ``preflow.data.validated`` describes the folder's files; ``gx_<kind>.json`` beside them hold Great Expectations'
    results, and ``report.html`` is for readers. They are also written when the set is unfit.

    Args:
        spec: Sources, shares to hold out, thresholds.
        out: An existing folder.
        observer: Receives progress, counts and advice.

    Raises:
        DataFileError: A file cannot be read, or is not what its digest says.
        DataUnfitError: Critical findings: an empty file, a column that no row has, too few usable rows, too many
            quarantined, nothing to train on, no held-out pair, or a finding whose severity is ``stop``. The message
            names each, with its first rows.
    """
    scratch = out / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left
    try:
        with unchanged(spec.sources()):
            critical = _check(spec, out, scratch, observer)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if critical:
        raise DataUnfitError(_unfit(critical, out))


def _check(spec: ValidateSpec, out: Path, scratch: Path, observer: Observer) -> list[str]:
    """Judge the rows and write everything; the findings that make the set unfit, in words."""
    benchmark = None
    if spec.benchmarks:
        benchmark = read_benchmarks(spec.benchmarks, scratch / "benchmarks", spec.settings)
    kinds: dict[DataKind, JudgedRows] = {}
    for kind in _SUITES:
        judged = _judge(kind, spec, scratch, benchmark, observer)
        if judged is not None:
            kinds[kind] = judged
    _split(kinds)
    reports = _write(kinds, spec.settings, out)
    critical = [
        finding for kind, report in reports.items() for finding in critical_findings(kind, report, spec.settings)
    ]
    verdict = "unfit" if critical else "fit"
    whole: dict[str, Any] = {"verdict": verdict, "critical": critical, "advice": remarks(reports)}
    whole.update(reports.items())
    whole["sources"] = {kind: names for kind, names in names_of(spec).items() if names}
    write_json(out / REPORT, whole)
    write_json(out / "metrics.json", metrics(reports))
    if any("secret" in report["findings"] for report in reports.values()):
        write_json(out / WITHHELD, {"files": [*_files_with_rows(out), QUARANTINE], "reason": "rows hold secrets"})
    (out / PAGE).write_text(page(whole), encoding="utf-8", errors="backslashreplace")
    for kind, report in reports.items():
        observer.note(summary(kind, report))
    return critical


def _judge(
    kind: DataKind, spec: ValidateSpec, scratch: Path, benchmark: Columns | None, observer: Observer
) -> JudgedRows | None:
    """Measure one kind of rows and run its suite over them; none where the recipe names no such data."""
    train: Sequence[DataSource] = getattr(spec, kind)
    evaluation: Sequence[DataSource] = getattr(spec, f"{kind}_eval")
    if not train and not evaluation:
        return None
    settings = spec.settings
    columns = read_kind(kind, {"train": train, "eval": evaluation}, scratch / kind, settings, observer, spec.reading)
    facts = compare_rows(columns, settings, benchmark)
    stage = "sft" if kind == "demonstrations" else "dpo"
    share, validation = getattr(spec, f"{stage}_eval_split"), getattr(spec, f"{stage}_validation_split")
    judged = JudgedRows(facts, None if columns.has_eval else share, validation)
    judged.reason = np.full(len(facts), -1, np.int16)
    judged.judge(run_suite(facts.frames(), _SUITES[kind][0](settings)))
    if spec.tokenizer is not None:
        _judge_lengths(judged, spec.tokenizer, spec.rendering, spec.max_seq_length or 0)
    if missed := int((~facts.fine & judged.used).sum()):
        raise RuntimeError(f"the suite of {kind} let {missed} rows pass that could not be converted")
    observer.progress(1, 1, f"rows of {kind} judged")
    return judged


def _judge_lengths(judged: JudgedRows, tokenizer: str, rendering: Rendering, limit: int) -> None:
    """Count the tokens of the rows that no finding has quarantined so far."""
    from preflow.data.quality.sets.token_counts import count_tokens, load_renderer  # it loads transformers

    facts = judged.facts
    tokens, facts.lost_tokens = count_tokens(facts.columns, load_renderer(tokenizer, rendering), limit, judged.used)
    facts.token_limit = limit
    facts.rows["too_many_tokens"] = tokens
    suite = lengths_suite(facts.columns.kind, limit, facts.settings)
    judged.judge(run_suite(facts.frames({"too_many_tokens": tokens}), suite))


def _split(kinds: dict[DataKind, JudgedRows]) -> None:
    """Part training from evaluation; training rows whose prompt is held out, exactly or nearly, are quarantined."""
    judged = list(kinds.values())
    if not judged:
        return
    used = [np.flatnonzero(one.used) for one in judged]
    usable = [
        SplitRows(
            one.facts.columns.get("split")[rows], one.facts.columns.get("part")[rows], one.share, one.validation_share
        )
        for one, rows in zip(judged, used, strict=True)
    ]
    leaked: list[Bools] = []
    chosen_by = validation_rows(usable)
    for one, rows, (held, leaks), validation in zip(judged, used, assign_splits(usable), chosen_by, strict=True):
        one.held, one.validation = np.zeros(len(one.facts), bool), np.zeros(len(one.facts), bool)
        one.held[rows[held]] = True
        one.validation[rows[validation]] = True
        leaked.append(np.zeros(len(one.facts), bool))
        leaked[-1][rows[leaks]] = True
    held_out = [(one.facts, one.held) for one in judged]
    for (kind, one), leaks in zip(kinds.items(), leaked, strict=True):
        nearly = nearly_leaking(one.facts, one.used & ~one.held & ~leaks, held_out)
        suite = split_suite(kind, one.facts.settings)
        one.judge(run_suite(one.facts.frames({LEAK: leaks, NEAR_LEAK: nearly}), suite))


def _write(
    kinds: dict[DataKind, JudgedRows], settings: ValidationSettings, out: Path
) -> dict[DataKind, dict[str, Any]]:
    """Write the rows of every kind and what was found; a kind that the recipe does not use gets empty files."""
    reports: dict[DataKind, dict[str, Any]] = {}
    (out / QUARANTINE).write_bytes(b"")
    for kind, (_, set_suite) in _SUITES.items():
        if kind not in kinds:
            for name in _row_files():
                if name.startswith(f"{kind}."):
                    (out / name).write_bytes(b"")
            continue
        one = kinds[kind]
        sets = measure_set(one.facts, one.used, one.used & ~one.held)
        one.outcomes.append(run_suite([sets.frame], set_suite(settings)))
        write_kind(one.facts, one.reason, one.held, one.validation, out)
        reports[kind] = kind_report(one.facts, one.failing, one.reason, (one.held, one.validation), sets)
        rows = {name: entry["rows"] for name, entry in reports[kind]["findings"].items()}
        write_json(out / f"gx_{kind}.json", as_result(kind, one.outcomes, rows))
    return reports


def _row_files() -> list[str]:
    """Files that every folder has, whatever rows the recipe names."""
    splits: tuple[Split, ...] = ("train", "eval")
    return [rows_file(kind, split) for kind in _SUITES for split in splits]


def _files_with_rows(out: Path) -> list[str]:
    optional = [rows_file(kind, "validation") for kind in _SUITES]
    return [*_row_files(), *(name for name in optional if (out / name).is_file())]


def _unfit(critical: list[str], out: Path) -> str:
    lines = "\n".join(f"  - {finding}" for finding in critical)
    head = "the data are unfit for training, so the run stops before any model is loaded:"
    return f"{head}\n{lines}\nAll rows: {out / REPORT}"
