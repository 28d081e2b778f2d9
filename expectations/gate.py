"""The data gate: bad rows are set aside by name, an unfit set stops the run, what passes is split and written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import great_expectations as gx

from expectations import demonstrations, preferences
from expectations.facts import Rows, read_kind
from expectations.report import critical_findings, kind_report, metrics, summary
from expectations.suites import DUPLICATE_ROW, Outcome, run_suite
from preflow.artifacts import write_json
from preflow.config import ValidationSettings
from preflow.data.rows import Demonstration, Pair, Source
from preflow.data.splits import Split, split_rows
from preflow.data.store import QUARANTINE, REPORT, Kind, SetAside, Side, rows_file, write_rows
from preflow.errors import DataUnfitError
from preflow.observer import Observer
from preflow.stages.specs import ValidateSpec

LEAK = "leaks_into_evaluation"
_SUITES: dict[Kind, Callable[[ValidationSettings], gx.ExpectationSuite]] = {
    "demonstrations": demonstrations.suite,
    "preferences": preferences.suite,
}
Row = TypeVar("Row", Demonstration, Pair)


@dataclass(slots=True)
class Judged(Generic[Row]):
    """The rows of one kind after its suite.

    Attributes:
        kind: What they were read as.
        asked: Whether the recipe names data of this kind at all.
        rows_in: Rows in the files.
        train: Usable rows of the recipe's ``dataset``.
        evaluation: Usable rows of its ``eval_dataset``; none where it names none.
        set_aside: Rows that did not pass, in the order of the files.
    """

    kind: Kind
    asked: bool = True
    rows_in: int = 0
    train: list[Row] = field(default_factory=list)
    evaluation: list[Row] | None = None
    set_aside: list[SetAside] = field(default_factory=list)


def run_gate(spec: ValidateSpec, out: Path, observer: Observer) -> None:
    """Check all rows of a recipe, set failing rows aside, split the rest, and write the validate stage's folder.

    The folder's files are described in ``preflow.data.store``; ``gx_<kind>.json`` beside them hold Great Expectations'
    results. They are also written when the set is unfit, so that the report can be read.

    Args:
        spec: Sources, shares to hold out, thresholds.
        out: An existing folder.
        observer: Told of progress, counts and advice.

    Raises:
        DataFileError: A file cannot be read.
        DataUnfitError: Critical findings: an empty file, a column that no row has, too few usable rows, too many set
            aside, nothing to train on, or no held-out pair. The message names each, with the first rows concerned.
    """
    settings = spec.settings
    shown = _judge("demonstrations", Demonstration, spec, out, observer)
    pairs = _judge("preferences", Pair, spec, out, observer)
    split_d, split_p = split_rows(
        shown.train,
        pairs.train,
        demonstrations_eval=shown.evaluation,
        pairs_eval=pairs.evaluation,
        sft_share=spec.sft_eval_split,
        dpo_share=spec.dpo_eval_split,
    )
    reports: dict[Kind, dict[str, Any]] = {}
    if shown.asked:
        reports["demonstrations"] = _write_kind(shown, split_d, out)
    if pairs.asked:
        reports["preferences"] = _write_kind(pairs, split_p, out)
    _write_empty(out, [kind for kind in _SUITES if kind not in reports])
    write_rows(out / QUARANTINE, [*shown.set_aside, *pairs.set_aside])
    critical = [finding for kind, report in reports.items() for finding in critical_findings(kind, report, settings)]
    write_json(out / REPORT, {"verdict": "unfit" if critical else "fit", "critical": critical, **reports})
    write_json(out / "metrics.json", metrics(reports))
    for kind, report in reports.items():
        observer.note(summary(kind, report))
    if critical:
        raise DataUnfitError(_unfit(critical, out))


def _judge(kind: Kind, form: type[Row], spec: ValidateSpec, out: Path, observer: Observer) -> Judged[Row]:
    """Read one kind of rows, run its suite, and part what passes from what does not."""
    train, evaluation = getattr(spec, kind), getattr(spec, f"{kind}_eval")
    if not train and not evaluation:
        return Judged(kind, asked=False)
    rows = read_kind(kind, train, evaluation, observer)
    outcome = run_suite(rows.frame(), _SUITES[kind](spec.settings))
    write_json(out / f"gx_{kind}.json", outcome.result)
    judged: Judged[Row] = Judged(kind, rows_in=len(rows), evaluation=[] if rows.has_eval else None)
    aside = _set_aside(rows, outcome)
    for source, (part, row) in rows.converted.items():
        if source not in aside:
            side = judged.train if part == "train" or judged.evaluation is None else judged.evaluation
            side.append(cast(Row, row))
    judged.set_aside = list(aside.values())
    return judged


def _set_aside(rows: Rows, outcome: Outcome) -> dict[Source, SetAside]:
    """The rows that the suite refuses, each with the first of its findings; of exact duplicates the first row stays."""
    aside: dict[Source, SetAside] = {}
    for finding, sources in outcome.failing.items():
        for source in sources if finding != DUPLICATE_ROW else ():
            if source in rows.problems:
                aside[source] = rows.problems[source]
            elif source not in aside:
                aside[source] = _refuse(rows, source, finding, "chosen and rejected say the same")
    if DUPLICATE_ROW in outcome.failing:
        _set_duplicates_aside(rows, outcome.failing[DUPLICATE_ROW], aside)
    if missed := rows.problems.keys() - aside.keys():
        raise RuntimeError(f"the suite of {rows.kind} has no expectation for {rows.problems[missed.pop()].finding}")
    return aside


def _set_duplicates_aside(rows: Rows, failing: list[Source], aside: dict[Source, SetAside]) -> None:
    wanted = set(failing)
    first: dict[str, Source] = {}
    facts = rows.facts
    for file, number, key in zip(facts["file"], facts["row"], facts["key"], strict=True):
        source = Source(file, number)
        if source in wanted and source not in aside:
            if key in first:
                aside[source] = _refuse(rows, source, DUPLICATE_ROW, f"says exactly what {first[key]} says")
            else:
                first[key] = source


def _refuse(rows: Rows, source: Source, finding: str, detail: str) -> SetAside:
    row = rows.converted[source][1]
    return _aside(rows.kind, row, finding, detail)


def _aside(kind: Kind, row: Demonstration | Pair, finding: str, detail: str) -> SetAside:
    values = {key: value for key, value in row.to_json().items() if key not in {"file", "row", "context"}}
    return SetAside(kind, row.source, finding, detail, values)


def _write_kind(judged: Judged[Row], split: Split[Row], out: Path) -> dict[str, Any]:
    """Write one kind's training and held-out rows; rows whose prompt is held out join those set aside."""
    sides: dict[Side, list[Row]] = {"train": split.train, "eval": split.held_out}
    for side, rows in sides.items():
        write_rows(out / rows_file(judged.kind, side), rows)
    detail = "its prompt is held out for evaluation, so it must not train"
    judged.set_aside += [_aside(judged.kind, row, LEAK, detail) for row in split.leaked]
    return kind_report(judged.rows_in, len(split.train), len(split.held_out), judged.set_aside)


def _write_empty(out: Path, kinds: list[Kind]) -> None:
    """The files of a kind that the recipe does not use are there and empty, so that loading needs no cases."""
    sides: tuple[Side, ...] = ("train", "eval")
    for kind in kinds:
        for side in sides:
            write_rows(out / rows_file(kind, side), [])


def _unfit(critical: list[str], out: Path) -> str:
    lines = "\n".join(f"  - {finding}" for finding in critical)
    head = "the data are unfit for training, so the run stops before any model is loaded:"
    return f"{head}\n{lines}\nAll rows: {out / REPORT}"
