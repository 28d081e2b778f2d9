"""Checks on the demo files: each raises a ValueError that names the row and the rule."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

Row = dict[str, str]

LONG_WORDS: dict[int, list[str]] = yaml.safe_load(
    (Path(__file__).resolve().parent / "content" / "long_words.yaml").read_text("utf-8")
)
PIECES = {word: pieces for pieces, found in LONG_WORDS.items() for word in found}

RUN = 6  # words: no run this long is shared by training and held-out answers
SHINGLE = 5  # words: near-identical answers are found by the overlap of such runs
NEAR = 0.8
NEAR_PROMPT = 0.5  # of runs of three words, between training and held-out prompts
LENGTH_BAND = 0.15
LONGER_WINS = (0.45, 0.55)
MEAN_BAND = 0.02
CUE = 0.75  # the lower end of the share of pairs that an opening or a word alone predicts
CUE_PAIRS = 30  # fewest pairs that have it on one side alone
OPENINGS = (1, 2, 3)  # words of an opening


def normalised(text: str) -> str:
    """Lower case, words only, one blank between them."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words in lower case, an apostrophe being no part of them."""
    return re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))


def size(text: str) -> int:
    """The number of tokens: a word or a mark is one, the words in long_words.yaml are more."""
    parts = re.findall(r"'\w+|\w+|[^\w\s]", text)
    return sum(PIECES.get(part, 1) for part in parts)


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    """Every run of `length` words; a shorter text is one run."""
    found = words(text)
    last = max(len(found) - length, 0)
    return {tuple(found[i : i + length]) for i in range(last + 1)}


def answers(rows: Sequence[Row]) -> Iterator[str]:
    """Every text that is not a prompt."""
    for row in rows:
        yield from (text for field, text in row.items() if field != "prompt")


def check_prompts(files: dict[str, list[Row]]) -> None:
    """No prompt occurs twice, in one file or in two, whatever its case and punctuation."""
    seen: dict[str, str] = {}
    for name, rows in files.items():
        for row in rows:
            key = normalised(row["prompt"])
            if key in seen:
                raise ValueError(f"{name}: prompt {row['prompt']!r} is already in {seen[key]}")
            seen[key] = name


def check_distinct(name: str, rows: Sequence[Row], field: str) -> None:
    """No two answers of one side are the same or nearly so."""
    shingles = [runs(row[field], SHINGLE) for row in rows]
    for i, left in enumerate(shingles):
        for j in range(i):
            shared = len(left & shingles[j])
            if shared and shared > NEAR * len(left | shingles[j]):
                raise ValueError(f"{name}: rows {j} and {i} have nearly the same {field}")


def check_sides(name: str, rows: Sequence[Row]) -> None:
    """Chosen and rejected share no run of RUN words, so they are clearly different texts."""
    for i, row in enumerate(rows):
        if shared := runs(row["chosen"], RUN) & runs(row["rejected"], RUN):
            raise ValueError(f"{name}: row {i} has {' '.join(min(shared))!r} on both sides")


def check_lengths(name: str, rows: Sequence[Row]) -> None:
    """The two answers of a pair are equally long, and length predicts nothing."""
    sizes = [(size(row["chosen"]), size(row["rejected"])) for row in rows]
    for i, (chosen, rejected) in enumerate(sizes):
        if abs(chosen - rejected) > LENGTH_BAND * max(chosen, rejected):
            raise ValueError(f"{name}: row {i} has answers of sizes {chosen} and {rejected}")
    wins = sum((c > r) + 0.5 * (c == r) for c, r in sizes) / len(sizes)
    if not LONGER_WINS[0] <= wins <= LONGER_WINS[1]:
        raise ValueError(f"{name}: 'the longer answer wins' is right for {wins:.1%} of the rows")
    ratio = sum(c for c, _ in sizes) / sum(r for _, r in sizes)
    if abs(ratio - 1) > MEAN_BAND:
        raise ValueError(f"{name}: chosen answers are {ratio:.3f} times as long as rejected ones")


def cues(text: str) -> set[str]:
    """The openings of an answer, and its words."""
    found = words(text)
    return {f"the opening {' '.join(found[:count])!r}" for count in OPENINGS} | {f"the word {word!r}" for word in found}


def lower_end(share: float, count: int) -> float:
    """Of the 95 % interval of a share (Wilson 1927)."""
    z = 1.96
    centre = share + z * z / (2 * count)
    return (centre - z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)) / (1 + z * z / count)


def check_cues(name: str, rows: Sequence[Row]) -> None:
    """No opening and no word gives the label away: both sides are worded alike."""
    chosen: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for row in rows:
        one, other = cues(row["chosen"]), cues(row["rejected"])
        chosen.update(one - other)
        rejected.update(other - one)
    for cue in sorted(chosen.keys() | rejected.keys()):
        count, most = chosen[cue] + rejected[cue], max(chosen[cue], rejected[cue])
        if count >= CUE_PAIRS and lower_end(most / count, count) >= CUE:
            raise ValueError(f"{name}: {cue} marks {chosen[cue]} chosen and {rejected[cue]} rejected answers")


def check_held_out(training: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Training and held-out rows share no similar prompt and no run of RUN words in an answer."""
    prompts = [runs(row["prompt"], 3) for row in training]
    for row in held_out:
        new = runs(row["prompt"], 3)
        if any(len(new & old) > NEAR_PROMPT * len(new | old) for old in prompts):
            raise ValueError(f"held-out prompt {row['prompt']!r} resembles a training prompt")
    known = {run for text in answers(training) for run in runs(text, RUN)}
    for text in answers(held_out):
        if shared := known & runs(text, RUN):
            raise ValueError(f"held-out answer {text!r} repeats {' '.join(min(shared))!r}")


def check_all(files: dict[str, list[Row]], held_out: str) -> None:
    """Every check on every file; `held_out` names the file no other may resemble."""
    check_prompts(files)
    for name, rows in files.items():
        for field in rows[0]:
            if field != "prompt":
                check_distinct(name, rows, field)
        if "rejected" in rows[0]:
            check_sides(name, rows)
            check_lengths(name, rows)
            check_cues(name, rows)
    training = [row for name, rows in files.items() if name != held_out for row in rows]
    check_held_out(training, files[held_out])
