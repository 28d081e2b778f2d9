"""Clean pairs, and defects of every kind planted into them, each in forms that a person or a tool would give them."""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.unit.data.quality.wording.paraphrases import HELD_BACK
from tests.unit.expectations.planted_forms import UNSEEN, as_asked, mistype, repeated, spoil, unclear

Row = dict[str, Any]
Plant = Callable[["PlantedRows"], None]


@dataclass
class PlantedRows:
    """Clean rows into which defects are planted.

    Attributes:
        rows: Lines of the file: JSON objects, or text as it is.
        free: Places of rows that nothing was planted into.
        planted: Kind of defect to the places of its rows.
        each: Rows of each kind.
        held_out: Rows of the evaluation file.
        benchmark: Rows of the named benchmark file.
    """

    rng: random.Random
    rows: list[Row | str]
    each: int
    free: list[int] = field(default_factory=list)
    planted: dict[str, list[int]] = field(default_factory=dict)
    held_out: list[Row] = field(default_factory=list)
    benchmark: list[Row] = field(default_factory=list)
    defect: str = ""

    def take(self) -> int:
        """A place that nothing was planted into."""
        return self.free.pop()

    def put(self, row: Row | str, *, named: bool = True) -> None:
        """Plant a row; ``named`` says that validation must name it."""
        place = self.take()
        self.rows[place] = row
        self.planted.setdefault(self.defect if named else "companion", []).append(place)

    def clean(self) -> Row:
        """A new clean row, which is in no file yet."""
        return pair(self.rng)


PARAPHRASES = [pair for pair in HELD_BACK if pair["kind"].endswith("said again")]


def words(rng: random.Random, low: int, high: int) -> str:
    """A sentence of invented words."""
    found = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
    return " ".join(found).capitalize() + rng.choice([".", ".", "!", "?"])


def pair(rng: random.Random) -> Row:
    """A pair with nothing wrong; one in five has several sentences and some have lines."""
    answer = words(rng, 12, 30)
    if rng.random() < 0.2:
        answer += "\n\n- " + words(rng, 4, 9) + "\n- " + words(rng, 4, 9)
    return {"prompt": words(rng, 8, 18), "chosen": answer, "rejected": words(rng, 12, 30)}


def _syllables() -> list[str]:
    rng = random.Random(5)
    parts = [a + b for a in "bcdfglmnprstv" for b in "aeiou"]
    return sorted({"".join(rng.choices(parts, k=rng.randint(1, 4))) + rng.choice(["", "n", "s"]) for _ in range(3000)})


WORDS = _syllables()


def respell(rng: random.Random, text: str) -> str:
    """The same words in another dress: case, spaces, marks, Unicode forms, or another order."""
    wide = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x61, 0x7B)})
    shuffled = text.rstrip(".!?").split()
    rng.shuffle(shuffled)
    return rng.choice(
        [
            text.upper(),
            text.title(),
            "  " + text.replace(" ", "  ") + "\n",
            text.replace(" ", "\u00a0"),
            text.rstrip(".!?") + "...",
            "\u201c" + text + "\u201d",
            text.replace(" ", ", ", 2),
            text.translate(wide),
            unicodedata.normalize("NFD", text) + "\u200b",
            " ".join(shuffled),
        ]
    )


def restyle(rng: random.Random, text: str) -> str:
    """The same text up to Unicode form, case and white space."""
    wide = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x61, 0x7B)})
    unseen = rng.choice(UNSEEN)
    forms = [text.upper(), text.swapcase(), f" {text}\t", text.replace(" ", " \u00a0"), text.translate(wide)]
    return rng.choice([*forms, f"\u202a{text}\u202c", f"{unseen}{text}", f"{text}{unseen}", text + "\ufe0f"])


def turns(row: Row) -> Row:
    """The same pair as messages."""
    user = [{"role": "user", "content": row["prompt"]}]
    texts = {side: [*user, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"id": 7, **texts}


def form(change: Callable[[random.Random, Row], Row | str]) -> Plant:
    """A defect of single rows."""

    def plant(place: PlantedRows) -> None:
        for _ in range(place.each):
            place.put(change(place.rng, place.clean()))

    return plant


def _wrong_type(rng: random.Random, row: Row) -> Row:
    return {**row, rng.choice(["chosen", "rejected", "prompt"]): rng.choice([True, 4, 2.5, {"text": "a"}])}


def _blank(rng: random.Random, row: Row) -> Row:
    return {
        **row,
        rng.choice(["chosen", "rejected", "prompt"]): rng.choice(["", "  ", "\n\t", "\u00a0", " "])
        + rng.choice(["", *UNSEEN]),
    }


def _missing(rng: random.Random, row: Row) -> Row:
    gone = rng.choice(["chosen", "rejected"])
    return {key: value for key, value in row.items() if key != gone}


def _malformed(rng: random.Random, row: Row) -> str:
    text = '{"prompt": "a", "chosen": "b", "rejected": "c"}'
    doubled = '{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}'
    return rng.choice([text[:-1], text[:20], "[1, 2]", text + ",", doubled, text.replace('"', "'")])


def _bad_turns(rng: random.Random, row: Row) -> Row:
    user, answer = {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}
    other = [user, {"role": "assistant", "content": row["rejected"]}]
    faults = [
        [user, user, answer],
        [user, answer, answer],
        [user, answer, user],
        [user, {**answer, "role": "narrator"}],
    ]
    return {"chosen": rng.choice(faults), "rejected": other}


def _encoding(rng: random.Random, row: Row) -> Row:
    side = rng.choice(["chosen", "rejected", "prompt"])
    return {**row, side: spoil(rng, row[side])}


def _identical(rng: random.Random, row: Row) -> Row:
    return {**row, "rejected": restyle(rng, row["chosen"])}


def _near_answers(rng: random.Random, row: Row) -> Row:
    text = row["chosen"] = words(rng, 20, 30)
    at = rng.randrange(20, 60)
    return {
        **row,
        "rejected": rng.choice([respell(rng, text), text[:at] + text[at + 1 :], text[:at] + "x" + text[at:]]),
    }


def _too_long(rng: random.Random, row: Row) -> Row:
    return {**row, "rejected": (row["rejected"] + " ") * 3000}


def _duplicates(place: PlantedRows) -> None:
    for _ in range(place.each):
        row = place.clean()
        first, second = sorted([place.free[-1], place.free[-2]])
        place.free[-2:] = [second, first]  # the earlier place is taken first
        place.put(row, named=False)
        place.put(turns(row) if place.rng.random() < 0.5 else dict(row))


def _near_copies(place: PlantedRows) -> None:
    for _ in range(place.each):
        row = place.clean()
        place.free[-2:] = sorted(place.free[-2:], reverse=True)
        place.put(row, named=False)
        change = mistype if place.rng.random() < 0.4 else respell
        copy = {key: change(place.rng, text) for key, text in row.items()}
        place.put(turns(copy) if place.rng.random() < 0.3 else copy)


def _contradictions(place: PlantedRows) -> None:
    for _ in range(place.each // 2):
        row = place.clean()
        swapped = {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
        if place.rng.random() < 0.5:
            swapped = {key: respell(place.rng, text) for key, text in swapped.items()}
        place.put(row)
        place.put(swapped)


def _cycles(place: PlantedRows) -> None:
    for _ in range(place.each // 3):
        prompt, *answers = (words(place.rng, 12, 20) for _ in range(4))
        for better, worse in zip(answers, [*answers[1:], answers[0]], strict=True):
            place.put({"prompt": prompt, "chosen": better, "rejected": worse})


def _wins(place: PlantedRows) -> None:
    answer = words(place.rng, 6, 9)
    for _ in range(place.each):
        place.put({**place.clean(), "chosen": respell(place.rng, answer) if place.rng.random() < 0.3 else answer})


def _leaks(place: PlantedRows) -> None:
    for _ in range(place.each):
        row = place.clean()
        if place.rng.random() < 0.2:
            row["prompt"] = words(place.rng, 6, 7)
        place.held_out.append(row)
        prompt = place.rng.choice([lambda _, text: text, respell, mistype, mistype])(place.rng, row["prompt"])
        place.put({**place.clean(), "prompt": prompt})


def _in_benchmark(place: PlantedRows) -> None:
    for number in range(place.each):
        row = place.clean()
        asked = row["prompt"]
        place.benchmark.append({"question": asked, "answer": str(number), "id": number})
        change = place.rng.choice([lambda _, text: text, respell, mistype, as_asked])
        row["prompt"] = change(place.rng, asked)
        place.put(turns(row) if place.rng.random() < 0.3 else row)


#: Most tokens of a row under the tests' own tokenizer; the longest clean row has fewer.
TOKENS = 512


def _overlong(rng: random.Random, row: Row) -> Row:
    side = rng.choice(["prompt", "chosen", "rejected"])
    kinds: list[Callable[[], str]] = [
        lambda: words(rng, 140, 200),
        lambda: "\n".join(words(rng, 10, 12) for _ in range(14)),
        lambda: "".join(rng.choices("東京都庁舎前広場", k=300)),
        lambda: " ".join(str(rng.randrange(10**6)) for _ in range(120)),
        lambda: rng.choice(WORDS) * 250,
    ]
    long = {**row, side: f"{row[side]} {rng.choice(kinds)()}"}
    if rng.random() < 0.3:
        long = turns(long)
    elif rng.random() < 0.3:  # another turn before the last
        before = [("user", words(rng, 8, 12)), ("assistant", words(rng, 8, 12)), ("user", long["prompt"])]
        long["prompt"] = [{"role": role, "content": content} for role, content in before]
    return long


def _paraphrased(rng: random.Random, row: Row) -> Row:
    """Answers written twice, with the marks and spaces of another hand."""
    written = rng.choice(PARAPHRASES)
    texts = [written["a"], written["b"]]
    rng.shuffle(texts)
    changes = (str, str, str.lower, lambda text: text.rstrip("."), lambda text: text.replace(" ", "  ", 1))
    chosen, rejected = (rng.choice(changes)(side) for side in texts)
    return {**row, "prompt": f"{words(rng, 3, 6)} {written['prompt']}", "chosen": chosen, "rejected": rejected}


def _unclear(rng: random.Random, row: Row) -> Row:
    chosen, rejected = unclear(rng, WORDS)
    return {**row, "chosen": chosen, "rejected": rejected}


#: Kind of defect to how it is planted and the findings of which one must name each of its rows.
DEFECTS: dict[str, tuple[Plant, set[str]]] = {
    "wrong type": (form(_wrong_type), {"wrong_type", "bad_role"}),  # an object is read as one turn
    "missing column": (form(_missing), {"missing_column"}),
    "blank": (form(_blank), {"blank_text"}),
    "malformed line": (form(_malformed), {"malformed_line"}),
    "turns": (form(_bad_turns), {"bad_role", "bad_order", "ends_on_user", "prompt_differs"}),
    "encoding": (form(_encoding), {"bad_encoding", "control_characters", "mojibake"}),
    "identical answers": (form(_identical), {"identical_answers"}),
    "near-identical answers": (form(_near_answers), {"too_similar", "identical_answers"}),
    "prompt repeated": (form(lambda rng, row: repeated(rng, row, pair(rng))), {"repeats_prompt"}),
    "too long": (form(_too_long), {"text_too_long"}),
    "duplicate": (_duplicates, {"duplicate_row"}),
    "near copy": (_near_copies, {"near_copy", "near_duplicate", "duplicate_row"}),
    "contradiction": (_contradictions, {"contradiction"}),
    "cycle": (_cycles, {"preference_cycle"}),
    "one answer wins everywhere": (_wins, {"wins_everywhere"}),
    "leak": (_leaks, {"leaks_into_evaluation", "nearly_leaks_into_evaluation"}),
    "benchmark leak": (_in_benchmark, {"in_benchmark"}),
    "too many tokens": (form(_overlong), {"too_many_tokens"}),
    "no clear winner": (form(_unclear), {"no_clear_winner", "too_similar"}),
    "said in other words": (form(_paraphrased), {"same_in_other_words"}),
}


def plant(count: int, each: int, seed: int) -> PlantedRows:
    """Clean rows, and ``each`` rows of every kind of defect among them."""
    rng = random.Random(seed)
    rows: list[Row | str] = [pair(rng) for _ in range(count)]
    place = PlantedRows(rng, rows, each, free=rng.sample(range(count), count))
    place.held_out = [pair(rng) for _ in range(60)]
    for defect, (put, _) in DEFECTS.items():
        place.defect = defect
        put(place)
    return place
