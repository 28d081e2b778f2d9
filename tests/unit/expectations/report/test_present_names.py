"""A report of files that were renamed is the one that validating them again would give."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from expectations.report.page import page
from expectations.report.present_names import under_present_names
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataUnfitError
from preflow.specs import ValidateSpec
from tests.unit.expectations.gate_support import ALL_OPEN_ALIKE, gate, pairs, shown, write

FAULTY = [
    {"prompt": "Where?", "chosen": "In first.jsonl:1 it is.", "rejected": "in first.jsonl:1 it is."},
    {"prompt": "Who?", "chosen": "x"},
]


def asked(folder: Path, names: dict[str, str]) -> ValidateSpec:
    """Files of the same contents under some names, two of them with the same rows, one of them empty."""
    contents: dict[str, list[Any]] = {
        "first": [*pairs(8), *FAULTY],
        "second": [*pairs(4, start=6), {"prompt": "How?", "chosen": "So.", "rejected": None}],
        "empty": [],
        "held": pairs(4, start=20),
        "shown": [*shown(4), {"prompt": "p"}],
        "benchmark": [{"prompt": "Question 3?"}],
    }
    files = {part: write(folder / names.get(part, f"{part}.jsonl"), rows) for part, rows in contents.items()}
    return ValidateSpec(
        preferences=resolve_sources([files["first"], files["second"], files["empty"]]),
        preferences_eval=resolve_sources([files["held"]]),
        demonstrations=resolve_sources([files["shown"]]),
        benchmarks=resolve_sources([files["benchmark"]]),
        settings=ALL_OPEN_ALIKE,
    )


@pytest.mark.slow
def test_a_report_under_present_names_is_what_validation_would_give(tmp_path: Path) -> None:
    """Two files have changed names, two that share theirs are told apart by folders; texts of rows stay."""
    names = {"first": "second.jsonl", "second": "first.jsonl", "empty": "x (2)/held.jsonl", "shown": "y.jsonl",
             "benchmark": "first (1).jsonl"}  # fmt: skip
    before = gate_of(asked(tmp_path / "before", {}), tmp_path / "one")
    present = asked(tmp_path / "now", names)
    expected = gate_of(present, tmp_path / "two")
    assert before != expected
    assert under_present_names(before, present) == expected
    assert page(under_present_names(before, present)) == page(expected)


def gate_of(spec: ValidateSpec, out: Path) -> dict[str, Any]:
    """The report, also of a set that is unfit."""
    with suppress(DataUnfitError):
        gate(spec, out)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def test_a_report_of_files_with_their_old_names_stays_as_it_is(tmp_path: Path) -> None:
    spec = asked(tmp_path, {})
    report = {
        "verdict": "fit",
        "sources": {"preferences": ["first.jsonl", "second.jsonl", "empty.jsonl", "held.jsonl"]},
    }
    assert under_present_names(report, spec) == report
    assert under_present_names({"verdict": "fit"}, spec) == {"verdict": "fit"}
