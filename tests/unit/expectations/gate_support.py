"""What several tests of validation share: rows, files, a run of validation, what it quarantined."""

import json
from pathlib import Path
from typing import Any

from expectations.gate import run_gate
from preflow.artifacts import Artifact
from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.observer import Silent
from preflow.specs import ValidateSpec


class Listener(Silent):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


#: All that are chosen in ``pairs`` begin with "Kind", and the sets are small: findings of their own.
ALL_OPEN_ALIKE = ValidationSettings(severity={"one_sided_opening": "off"}, recommended_pairs=0)


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {n}?", "chosen": f"Kind {n}.", "rejected": f"Rude {n}."}
        for n in range(start, start + count)
    ]


def shown(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Question {n}?", "completion": f"Kind {n}."} for n in range(count)]


def write(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")
    return str(path)


def spec(options: dict[str, Any] | None = None, **files: str) -> ValidateSpec:
    sources: dict[str, Any] = {name: resolve_sources([file]) for name, file in files.items()}
    return ValidateSpec(**sources, **(options or {}))


def gate(asked: ValidateSpec, out: Path) -> tuple[Artifact, dict[str, Any], list[str]]:
    out.mkdir(exist_ok=True)
    listener = Listener()
    run_gate(asked, out, listener)
    artifact = Artifact(path=str(out), digest="", bytes=0)
    return artifact, artifact.load("report.json"), listener.notes


def quarantined(out: Path) -> dict[tuple[str, int], str]:
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").split("\n") if line]
    return {(line["file"], line["row"]): line["finding"] for line in lines}
