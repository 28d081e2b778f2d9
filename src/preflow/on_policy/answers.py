"""Sampled answers as the stage ``sample`` writes them, one line per prompt, and the file of what a judge said."""

import json
from pathlib import Path
from typing import Any

#: The file of all answers.
ANSWERS = "answers.jsonl"
#: By prompt, in the same order: scores of its answers, or comparisons of each two.
JUDGED = "judged.json"
#: A prompt with its answers.
Row = dict[str, Any]


def write_answers(path: Path, rows: list[Row]) -> None:
    """Write one line per prompt."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as handle:
        handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load_answers(path: Path) -> list[Row]:
    """The rows of ``answers.jsonl``."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]
