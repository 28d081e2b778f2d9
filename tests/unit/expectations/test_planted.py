"""Planted defects are found, kind by kind, and clean rows are left alone."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein

from expectations.gate import run_gate
from preflow.data.files.sources import resolve_sources
from preflow.data.quality.wording.equivalence import no_clear_winner
from preflow.observer import Silent
from preflow.specs import ValidateSpec
from tests.conftest import make_tokenizer, write_jsonl
from tests.unit.expectations.planted import DEFECTS, TOKENS, WORDS, PlantedRows, pair, plant
from tests.unit.expectations.planted_forms import different
from tests.unit.expectations.suites.checking import checked
from tests.unit.support import shared_data

pytestmark = pytest.mark.slow

#: More than half of the rows stay clean: 20 kinds of 30 defects and their companions take about 660.
ROWS, EACH = 1400, 30
#: Defects of meaning, of which the surface shows most but not all.
MEANING = {"no clear winner": 0.7, "said in other words": 0.7}
#: The usual examples, and pairs that look alike but are not.
UNCLEAR = [
    ("What is 2+2?", "The answer is 4.", "2+2 equals 4."),
    ("How was the sunset?", "The sunset was beautiful.", "The sunset was pretty."),
]
CLEAR = [
    (
        "Explain machine learning to a beginner",
        "Machine learning is a way to let a computer find patterns in examples, so that it can judge new cases.",
        "It's when computers learn stuff.",
    ),
    ("Capital of France?", "The capital of France is Paris.", "The capital of France is Rome."),
    ("Is it safe?", "It is safe to eat.", "It is not safe to eat."),
    ("How many?", "There are 12 of them.", "There are 13 of them."),
    ("Sum?", "The sum is 42.", "I do not know the sum."),
    ("Edit: He go to the park", "He goes to the park every day.", "He goes to the stupid park every day."),
]


def named(report: dict[str, Any]) -> dict[int, set[str]]:
    """Line of the training file to the findings that name it; what is said of the whole set is left out."""
    found: dict[int, set[str]] = {}
    for finding, entry in report["findings"].items():
        if finding not in {"one_sided_opening", "length_bias", "shallow_cue"}:
            for row in entry["rows"].get("preferences.jsonl", []):
                found.setdefault(row, set()).add(finding)
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlantedRows, dict[int, set[str]]]:
    place = plant(ROWS, EACH, seed=11)
    folder = tmp_path_factory.mktemp("planted")
    make_tokenizer().save_pretrained(str(folder / "tokenizer"))
    benchmark = resolve_sources([str(write_jsonl(folder / "benchmark.jsonl", place.benchmark))])
    more = {"benchmarks": benchmark, "tokenizer": str(folder / "tokenizer"), "max_seq_length": TOKENS}
    report = checked(folder, place.rows, place.held_out, more)
    assert report["rows_in"] == report["used"] + report["set_aside"]
    return place, named(report)


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects_are_found(planted: tuple[PlantedRows, dict[int, set[str]]], defect: str) -> None:
    place, found = planted
    rows = place.planted[defect]
    missed = [row for row in rows if not found.get(row + 1, set()) & DEFECTS[defect][1]]
    assert len(rows) >= EACH - 2
    assert 1 - len(missed) / len(rows) >= MEANING.get(defect, 0.98), [place.rows[row] for row in missed[:3]]


def test_tokens_are_counted_of_rows_that_nothing_else_quarantines(
    planted: tuple[PlantedRows, dict[int, set[str]]],
) -> None:
    """A line of 50 MB must not be tokenized to learn what is known already."""
    place, found = planted
    assert not any("too_many_tokens" in found[row + 1] for row in place.planted["too long"])


def test_clean_rows_are_left_alone(planted: tuple[PlantedRows, dict[int, set[str]]]) -> None:
    place, found = planted
    alarms = {row: found[row + 1] for row in place.free if row + 1 in found}
    assert len(place.free) > ROWS / 2
    assert len(alarms) <= 0.005 * len(place.free), list(alarms.items())[:5]


def test_the_usual_examples_are_told_apart(tmp_path: Path) -> None:
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in (*UNCLEAR, *CLEAR)]
    report = checked(tmp_path, rows, [{"prompt": "p q r s", "chosen": "one", "rejected": "two"}], recommended_pairs=0)
    assert report["findings"]["no_clear_winner"]["rows"] == {"preferences.jsonl": [1, 2]}
    assert report["findings"].keys() <= {"no_clear_winner"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gsm8k_correctness.prefs.jsonl", "preferences"),
        ("gsm8k_train.sft.jsonl", "demonstrations"),
        ("hh_harmless_test.prefs.jsonl", "preferences"),
    ],
)
def test_real_clean_rows_are_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    sources: dict[str, Any] = {kind: resolve_sources([str(shared_data(name))])}
    run_gate(ValidateSpec(**sources), tmp_path, Silent())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))[kind]
    # Looked at by hand: they are what they are called (of 13 answers that repeat the last turn of HH, ten do).
    true = {"blank_text", "duplicate_row", "near_copy", "bad_order", "prompt_differs", "repeats_prompt"}
    alarms = {
        row for f, e in report["findings"].items() if f not in true for rows in e["rows"].values() for row in rows
    }
    assert len(alarms) <= 0.005 * report["rows_in"]


def test_what_is_said_of_right_and_wrong_solutions(tmp_path: Path) -> None:
    """Right and wrong differ by a number, and 4,157 pairs are clean but for copies.

    6 are quarantined, and they are copies. 18 more (0.43 %) are warned of as near duplicates: the same question with
    nearly the same solutions. Nothing else is said of any.
    """
    file = shared_data("gsm8k_correctness.prefs.jsonl")
    run_gate(ValidateSpec(preferences=resolve_sources([str(file)])), tmp_path, Silent())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["preferences"]
    found = {name: entry["rows"][file.name] for name, entry in report["findings"].items()}
    assert {name: len(rows) for name, rows in found.items()} == {
        "duplicate_row": 4,
        "near_copy": 2,
        "near_duplicate": 18,
    }
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [tuple(row[name] for name in ("prompt", "chosen", "rejected")) for row in rows]
    bags = [tuple(" ".join(sorted(re.findall(r"\w+", text.lower()))) for text in row) for row in texts]
    assert all(texts[row - 1] in texts[: row - 1] for row in found["duplicate_row"])
    assert all(bags[row - 1] in bags[: row - 1] for row in found["near_copy"])
    asked = [bag[0] for bag in bags]
    assert all(asked[row - 1] in asked[: row - 1] for row in found["near_duplicate"])


def test_prompts_of_one_template_do_not_leak(tmp_path: Path) -> None:
    """Long prompts that differ in one word ask for different things."""
    rng = random.Random(3)
    topics = rng.sample([word for word in WORDS if len(word) > 6], 300)
    asks = "Please write a short but complete explanation of the topic of {}, with examples where they help."
    rows = [{**pair(rng), "prompt": asks.format(topic)} for topic in topics]
    report = checked(tmp_path, rows[:240], rows[240:])
    slips = {n for n, a in enumerate(topics[:240], 1) if any(Levenshtein.distance(a, b) <= 1 for b in topics[240:])}
    assert len(slips) < 3
    assert named(report).keys() <= slips


def test_answers_that_differ_in_a_fact_have_a_winner() -> None:
    """Colours, numbers, names, negations, opposites, units, days, and who did what to whom."""
    rng = random.Random(8)
    pairs = [different(rng, WORDS) for _ in range(600)]
    assert [pair for pair in pairs if no_clear_winner(*pair)] == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("You're welcome!", "You are welcome."),
        ("The car is very fast.", "The automobile is quite quick."),
        ("The sun is a star.", "Our sun is a star."),
        ("Paris is the capital of France.", "The capital of France is Paris."),
        ("The weather today is sunny and warm.", "Today\u2019s weather is warm and sunny."),
        ("It has twenty-one parts.", "It has 21 parts."),
    ],
)
def test_the_same_said_otherwise_has_none(left: str, right: str) -> None:
    assert no_clear_winner(left, right)
    assert no_clear_winner(right, left)


def test_an_added_rude_word_is_a_difference() -> None:
    assert not no_clear_winner("The cube of 4 is 64.", "The cube of 4 is obviously 64.")


def test_few_of_the_polite_and_rude_answers_are_called_unclear(tmp_path: Path) -> None:
    """Those that are differ by a word such as "indeed"."""
    file = shared_data("rasbt_polite.prefs.jsonl")
    run_gate(ValidateSpec(preferences=resolve_sources([str(file)])), tmp_path, Silent())
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["preferences"]
    assert len(report["findings"]["no_clear_winner"]["rows"][file.name]) <= 0.1 * report["rows_in"]
