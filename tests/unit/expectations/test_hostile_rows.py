"""Rows that others wrote to break data validation, and files that they change while it reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import WITHHELD
from preflow.config.validation import ValidationSettings
from preflow.errors import DataFileError
from tests.unit.expectations.gate_support import ALL_OPEN_ALIKE, gate, pairs, quarantined, spec, write

LONG = {"prompt": "Question: " + " " * 30_000 + "y:", "chosen": "caf\u00c3\u00a9 " * 5_000, "rejected": "no\x00"}


@pytest.mark.slow
def test_a_row_above_the_limit_is_quarantined_before_anything_is_measured(tmp_path: Path) -> None:
    rows: list[Any] = [*pairs(60), LONG]
    settings = ALL_OPEN_ALIKE.model_copy(update={"maximum_characters": 50_000})
    _, report, _ = gate(spec({"settings": settings}, preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    assert quarantined(tmp_path / "out") == {("p.jsonl", 61): "text_too_long"}
    findings = report["preferences"]["findings"]
    assert {name: entry["count"] for name, entry in findings.items() if entry["severity"] == "set_aside"} == {
        "text_too_long": 1
    }
    characters = sum(map(len, LONG.values()))
    detail = f"the row has {characters} characters (validation.maximum_characters is 50000)"
    assert findings["text_too_long"]["examples"] == [{"at": "p.jsonl:61", "detail": detail, "texts": []}]
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(line)["values"], json.loads(line)["measure"]) == (LONG, characters)


@pytest.mark.slow
def test_a_row_above_a_limit_that_only_warns_is_measured_as_any_other(tmp_path: Path) -> None:
    rows: list[Any] = [*pairs(60), LONG]
    settings = ValidationSettings(maximum_characters=50_000, severity={"text_too_long": "warn"}, recommended_pairs=0)
    _, report, _ = gate(spec({"settings": settings}, preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    assert quarantined(tmp_path / "out") == {("p.jsonl", 61): "control_characters"}
    findings = report["preferences"]["findings"]
    assert [findings[name]["count"] for name in ("text_too_long", "mojibake", "control_characters")] == [1, 1, 1]


@pytest.mark.slow
def test_data_that_are_swapped_after_their_digest_was_taken_are_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", pairs(60))
    asked = spec({"settings": ALL_OPEN_ALIKE}, preferences=file)
    write(tmp_path / "p.jsonl", pairs(60, 1000))
    with pytest.raises(DataFileError, match=r"p\.jsonl is not what it was when its digest was taken"):
        gate(asked, tmp_path / "out")


@pytest.mark.slow
def test_secrets_that_are_found_are_shown_nowhere_and_their_rows_are_withheld(tmp_path: Path) -> None:
    key = "AKIA" + "QYLPMN5HFIQR7XYZ"
    rows: list[Any] = [*pairs(60), {"prompt": f"Is {key} mine?", "chosen": f"No, {key} is not.", "rejected": "Yes."}]
    settings = ALL_OPEN_ALIKE.model_copy(update={"personal_data": True, "whole_examples": True})
    asked = spec({"settings": settings}, preferences=write(tmp_path / "p.jsonl", rows))
    artifact, report, _ = gate(asked, tmp_path / "o")
    secret = report["preferences"]["findings"]["secret"]
    assert secret["rows"] == {"p.jsonl": [61]}
    assert secret["examples"][0]["texts"][:2] == ["Is *** mine?", "No, *** is not."]
    shown = [path for path in (tmp_path / "o").iterdir() if path.name not in artifact.load(WITHHELD)["files"]]
    assert {path.name for path in shown} >= {"report.json", "report.html", "metrics.json"}
    assert [path.name for path in shown if key in path.read_text(encoding="utf-8")] == []
    assert key in artifact.file("preferences.train.jsonl").read_text(encoding="utf-8")  # what is trained on stays


@pytest.mark.slow
def test_where_no_secret_is_found_nothing_is_withheld(tmp_path: Path) -> None:
    gate(spec({"settings": ALL_OPEN_ALIKE}, preferences=write(tmp_path / "p.jsonl", pairs(60))), tmp_path / "out")
    assert not (tmp_path / "out" / WITHHELD).exists()
