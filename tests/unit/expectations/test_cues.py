"""A cue that predicts the label alone is measured with its interval and named; balanced sets are left alone."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from tests.unit.expectations.planted import Row, pair, words
from tests.unit.expectations.suites.checking import checked

pytestmark = pytest.mark.slow

PAIRS = 500
#: Pairs that have a cue, and in how many of them it marks the side it is planted on.
HAVE, MARKS = 40, 38
CUES = ("length_bias", "shallow_cue", "one_sided_opening")
Dress = Callable[[random.Random, str], str]


def clean(rng: random.Random) -> Row:
    """A pair whose answers are drawn alike, so that nothing but chance tells them apart."""
    return {"prompt": words(rng, 8, 18), "chosen": words(rng, 12, 30), "rejected": words(rng, 12, 30)}


def other(side: str) -> str:
    return {"chosen": "rejected", "rejected": "chosen"}[side]


def planted(rng: random.Random, dresses: list[Dress], side: str) -> list[Row]:
    """Clean pairs; each dress is worn by one answer of some, nearly always that of ``side``."""
    rows = [clean(rng) for _ in range(PAIRS)]
    for number, row in enumerate(rows[: HAVE * len(dresses)]):
        dressed = side if number % HAVE < MARKS else other(side)
        row[dressed] = dresses[number // HAVE](rng, row[dressed])
    rng.shuffle(rows)
    return rows


def findings(folder: Path, rows: list[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Findings about cues, and what was measured; every row is used, so that all of them count."""
    held_out = [{"prompt": f"{n} n x y", "chosen": f"{n} yes it is", "rejected": f"{n} no it is"} for n in range(3)]
    report = checked(folder, rows, held_out, severity={"near_copy": "warn", "duplicate_row": "warn"})
    return {name: entry for name, entry in report["findings"].items() if name in CUES}, report["measures"]


def bulleted(mark: str) -> Dress:
    def dress(rng: random.Random, text: str) -> str:
        marks = [mark if mark != "1." else f"{n}." for n in (1, 2, 3)]
        return (
            "\n".join(f"{m} {words(rng, 4, 8)}" for m in marks)
            if rng.random() < 0.5
            else (text + "".join(f"\n{rng.choice(['', '  '])}{m} {words(rng, 2, 4)}" for m in marks))
        )

    return dress


DRESSES: dict[str, Dress] = {
    "a list": bulleted("-"),
    "a list (stars)": bulleted("*"),
    "a list (numbers)": bulleted("1."),
    "a list (dots)": bulleted("•"),
    "bold text": lambda rng, text: text.replace(" ", " **", 1).replace(" ", "** ", 2),
    "headings": lambda rng, text: f"{text}\n## {words(rng, 2, 3)}",
    "a code block": lambda rng, text: f"{text}\n```\n{words(rng, 2, 3)}\n```",
    "several paragraphs": lambda rng, text: f"{text}\n\n{words(rng, 5, 9)}",
    "a digit": lambda rng, text: f"{text} {rng.randrange(99)}",
    "a word of apology": lambda rng, text: f"{text} {rng.choice(['Sorry!', 'I apologize.', 'My apologies.'])}",
}


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_planted_marks_of_form_are_named_with_their_side(tmp_path: Path, side: str) -> None:
    found, measures = findings(tmp_path, planted(random.Random(side), list(DRESSES.values()), side))
    assert found["shallow_cue"]["severity"] == "warn"
    cues = {cue["cue"]: cue for cue in measures["shallow_cue"]}
    for name in {name.partition(" (")[0] for name in DRESSES}:
        assert cues[name]["side"] == side, name
        assert cues[name]["low"] >= 0.75, cues[name]
    assert cues["a list"]["pairs"] == 4 * HAVE


#: An opening phrase as it is reported, and forms of it.
OPENINGS = {
    "sure": ["Sure! ", "Sure, ", "sure - ", "SURE: ", "Sure thing \u2013 "],
    "i apologize": ["I apologize, ", "I apologize: ", "I APOLOGIZE. ", "\u201cI\u201d apologize "],
    "as an ai": ["As an AI, ", "as an AI - ", "As an \uff21\uff29 "],
}


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_openings_that_one_side_has_are_named_with_their_rows(tmp_path: Path, side: str) -> None:
    dresses: list[Dress] = [lambda rng, text, forms=forms: rng.choice(forms) + text for forms in OPENINGS.values()]  # type: ignore[misc]
    rows = planted(random.Random(side), dresses, side)
    found, measures = findings(tmp_path, rows)
    named = {cue["cue"]: cue["side"] for cue in measures["one_sided_opening"] if cue["low"] >= 0.75}
    assert named == dict.fromkeys(OPENINGS, side)
    begins = tuple(form for forms in OPENINGS.values() for form in forms)
    have = [n for n, row in enumerate(rows, 1) if any(row[s].startswith(begins) for s in (side, other(side)))]
    assert found["one_sided_opening"]["rows"] == {"preferences.jsonl": have}


def padded(rng: random.Random, text: str) -> str:
    more = [lambda: words(rng, 20, 40), lambda: f"{text} {text}", lambda: "\n".join(words(rng, 8, 12) for _ in "abc")]
    return f"{text} {rng.choice(more)()}"


@pytest.mark.parametrize(
    ("side", "dresses", "warns"), [("chosen", 10, True), ("rejected", 10, True), ("chosen", 3, False)]
)
def test_planted_length_bias_is_an_effect_with_its_interval(
    tmp_path: Path, side: str, dresses: int, warns: bool
) -> None:
    """Whichever side is the longer; the share is counted here, and its interval is scipy's; a weak one is shown."""
    rows = planted(random.Random(side), [padded] * dresses, side)
    found, measures = findings(tmp_path, rows)
    difference = [len(row[side].split()) - len(row[other(side)].split()) for row in rows]
    longer, differ = sum(d > 0 for d in difference), sum(d != 0 for d in difference)
    interval = binomtest(longer, differ).proportion_ci(0.95, method="wilson")
    got = measures["length_bias"]
    assert (got["side"], got["pairs"], got["value"]) == (side, differ, longer / differ)
    assert (got["low"], got["high"]) == pytest.approx((interval.low, interval.high))
    assert ("length_bias" in found) is warns


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_balanced_sets_are_left_alone(tmp_path: Path, seed: int) -> None:
    """Lists, openings and lengths on both sides alike; small sets too, where chance is loudest."""
    rng = random.Random(seed)
    dresses = [*DRESSES.values(), lambda rng, text: "Sure, " + text, padded]
    rows = [pair(rng) if seed % 2 else clean(rng) for _ in range(rng.choice([60, 150, 800]))]
    for row in rows:
        row["chosen"], row["rejected"] = rng.sample([row["chosen"], row["rejected"]], 2)
        for side in ("chosen", "rejected"):
            if rng.random() < 0.4:
                row[side] = rng.choice(dresses)(rng, row[side])
    found, measures = findings(tmp_path, rows)
    assert measures["length_bias"]["low"] < 0.6
    assert found == {}
