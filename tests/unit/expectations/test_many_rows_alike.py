"""Many rows of one template: few of them are compared, and those that are nearly the same are found all the same."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expectations import row_facts
from preflow.config.validation import ValidationSettings
from tests.unit.expectations.gate_support import gate, spec, write

ROWS = 3_000
SETTINGS = ValidationSettings(severity={"near_copy": "warn"}, recommended_pairs=0)


def word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=12))


def template(number: int) -> dict[str, str]:
    rng = random.Random(number)
    return {
        "prompt": f"Please write a short explanation of the topic of {word(rng)}, with examples where they help.",
        "chosen": f"The topic is {word(rng)}, which many people like to read about {word(rng)} in the evening.",
        "rejected": f"No idea at all, and I do not want to say more about {word(rng)} than {word(rng)} to you.",
    }


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pairs of texts were compared, by the kind of text."""
    counts: Counter[str] = Counter()
    for name in ("rows_alike", "prompts_alike"):
        monkeypatch.setattr(row_facts, name, counting(getattr(row_facts, name), name, counts))
    return counts


def counting(make: Callable[..., Any], name: str, counts: Counter[str]) -> Callable[..., Any]:
    def counted(*given: Any) -> Any:
        compare = make(*given)

        def both(left: Any, right: Any) -> Any:
            counts[name] += len(left)
            return compare(left, right)

        return both

    return counted


@pytest.mark.slow
def test_rows_of_one_template_are_hardly_compared_and_near_copies_among_them_are_found(
    tmp_path: Path, compared: Counter[str]
) -> None:
    rows = [template(number) for number in range(ROWS)]
    slips = {place: place - 250 for place in range(1_000, ROWS, 500)}
    for place, earlier in slips.items():  # one letter lost in the middle of a word
        rows[place] = {name: text.replace("examples", "exmples") for name, text in rows[earlier].items()}
    file = write(tmp_path / "p.jsonl", rows)
    _, report, _ = gate(spec({"settings": SETTINGS}, preferences=file), tmp_path / "out")
    assert report["preferences"]["findings"]["near_copy"]["rows"] == {"p.jsonl": [place + 1 for place in slips]}
    assert compared["rows_alike"] < 2 * ROWS
    assert compared["prompts_alike"] < ROWS
