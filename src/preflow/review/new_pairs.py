"""Preference pairs from the answers of a review of training prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preflow.data.text import row_json
from preflow.review.collecting import Answered, majority
from preflow.review.key import Key

#: What says in a row where it came from.
SOURCE = "human-review"


def new_pairs(key: Key, answered: Answered) -> list[dict[str, Any]]:
    """A row for each pair of which more than half of the reviewers choose one answer; ties, gold, repeats give none."""
    chosen = {name: answered.of(key, "pair", name) for name in key.reviewers}
    rows = []
    for number, pair in enumerate(key.pairs):
        given = {name: choices[number] for name, choices in chosen.items() if number in choices}
        found = majority(list(given.values()), len(key.reviewers))
        if found is None or found[0] not in ("new", "old"):
            continue
        texts = {"new": pair.new, "old": pair.old}
        other = "old" if found[0] == "new" else "new"
        rows.append(
            {
                "prompt": list(pair.prompt),
                "chosen": _answer(texts[found[0]]),
                "rejected": _answer(texts[other]),
                "source": SOURCE,
                "run": key.run,
                "reviewers": sorted(given),
                "agreement": found[1],
            }
        )
    return rows


def write_pairs(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as handle:
        handle.writelines(map(row_json, rows))
    partial.rename(file)


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
