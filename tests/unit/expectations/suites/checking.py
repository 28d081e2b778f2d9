"""Runs validation on rows that a test made, and gives its report."""

import json
from pathlib import Path
from typing import Any

from expectations.gate import run_gate
from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.observer import Silent
from preflow.specs import ValidateSpec


def checked(
    folder: Path, rows: list[Any], held_out: list[Any], more: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """The report on some pairs; ``more`` goes to the stage's specification."""
    sources: dict[str, Any] = dict(more or {})
    for name, lines in (("preferences", rows), ("preferences_eval", held_out)):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text + "\n", encoding="utf-8")
        sources[name] = resolve_sources([str(folder / f"{name}.jsonl")]) if lines else ()
    out = folder / "out"
    out.mkdir()
    run_gate(ValidateSpec(**sources, settings=ValidationSettings(**settings)), out, Silent())
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))["preferences"]
    return report
