"""Forms in which defects come: what people and tools do to a text, none of which the checks were written against."""

import random
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def _turn(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def repeated(rng: random.Random, row: Row, other: Row) -> Row:
    """A row whose one answer repeats what was asked last; ``other`` gives turns that stand before."""
    asked = row["prompt"]
    few = " ".join(asked.rstrip(".!?").split()[:3])
    bare = asked.rstrip(".!?")
    said: list[Callable[[], str]] = [
        lambda: asked,
        asked.upper,
        lambda: f"{asked} {row['chosen']}",
        lambda: f"{bare} {row['chosen']}",
        lambda: f"{asked.replace(' ', '  ')}\n\n{row['chosen']}",
        lambda: f'You asked: "{asked}" {row["chosen"]}',
        lambda: f"{other['prompt']} \u00ab{bare}\u00bb {row['chosen']}",
        lambda: f"> {asked}\n\n{row['chosen']}",
        lambda: f"**{asked}**\n{row['chosen']}",
        lambda: f"Q: {asked.lower()}\nA: {row['chosen']}",
        lambda: f"\u200b{asked.replace(' ', chr(0xA0))} {row['chosen']}",
        lambda: asked.replace(" ", ", ", 3),
    ]
    side = rng.choice(["chosen", "rejected"])
    if rng.random() < 0.1:
        return {**row, "prompt": few + rng.choice(["", "?", "."]), side: few + rng.choice(["", "?", "!"])}
    spoilt = {**row, side: rng.choice(said)()}
    before: list[list[Row]] = [
        [],
        [_turn("system", other["chosen"])],
        [_turn("user", other["prompt"]), _turn("assistant", other["chosen"])],
        [_turn("system", "Be kind."), _turn("user", other["prompt"]), _turn("assistant", other["rejected"])],
    ]
    form = rng.randrange(6)
    if form < len(before):
        return {**spoilt, "prompt": [*before[form], _turn("user", asked)]}
    return {**spoilt, "system": other["chosen"]} if form == 4 else spoilt


def mistype(rng: random.Random, text: str) -> str:
    """One slip of the hand, and sometimes another dress: a letter or a space lost, added, doubled, swapped, changed."""
    slip = rng.randrange(6)
    inside = [n for n in range(1, len(text) - 2) if text[n].isalpha() and text[n + 1].isalpha()]
    at = rng.choice(inside)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    if slip == 0:
        spoilt = text[:at] + text[at + 1 :]
    elif slip == 1:
        spoilt = text[:at] + letter + text[at:]
    elif slip == 2:
        spoilt = text[:at] + text[at] + text[at:]
    elif slip == 3:
        spoilt = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    elif slip == 4:
        spoilt = text[:at] + " " + text[at:] if rng.random() < 0.5 else text.replace(" ", "", 1)
    else:  # in a short word another letter makes another word
        word = max(text.split(), key=len)
        spoilt = text.replace(word, letter.join([word[:2], word[3:]]), 1)
    dress: list[Callable[[str], str]] = [str, str, str, str.upper, str.title, lambda t: t.replace(" ", ", ", 1)]
    return rng.choice(dress)(spoilt)


def as_asked(rng: random.Random, text: str) -> str:
    """A benchmark's question as prompts for models wrap it."""
    forms = [
        "Question: {}\nAnswer:",
        "Q: {}\nA:",
        "### Instruction:\n{}\n\n### Response:\n",
        "Problem: {}\n\nSolution:",
        "**Question:** {}",
        "Answer the following question: {}",
        "{} Let's think step by step.",
        "{}\n\nAnswer: ",
    ]
    return rng.choice(forms).format(text)


#: Characters that are not displayed, alone or around a text.
UNSEEN = "\u200b\ufeff\u3164\u2800\u115f\ufe0f\u180e\u061c\u2062"


def spoil(rng: random.Random, text: str) -> str:
    """A text with characters that no reader sees as meant, or read in a wrong encoding."""
    accented = rng.choice(
        ["a caf\u00e9", "so na\u00efve", "Z\u00fcrich \u2013 sch\u00f6n", "It\u2019s", "cr\u00e8me br\u00fbl\u00e9e"]
    )
    codec = rng.choice(["cp1252", "latin-1", "mac_roman", "cp437", "cp850", "gbk", "shift_jis", "koi8_r"])
    char = rng.choice("\x00\x07\x0c\x1b\x7f\x85\x9d\u202e\u202d\ufffd\ufffe\uffff\ue123\uf0b7\ufdd0\U0010ffff")
    read_wrongly = f"{text} {accented.encode().decode(codec, 'ignore')}"
    forms = [f"{text} {chr(0xD83D)}", text.replace(" ", char, 1), f"{text}{char}", f"{char}{text}", read_wrongly]
    return rng.choice([*forms, read_wrongly, f"{accented.encode().decode(codec, 'ignore')} {text}"])


ALIKE = [
    *("beautiful pretty", "big large", "quick fast", "glad happy", "begin start", "help aid", "smart clever"),
    *("huge enormous", "tired weary", "odd strange", "delicious tasty", "hard difficult", "loud noisy"),
    *("rich wealthy", "awful terrible", "silent quiet", "simple easy", "polite courteous", "famous renowned"),
    *("wonderful marvellous", "scared afraid", "funny amusing", "brave courageous", "small little"),
]
FRAMES = [
    ("The {n} was {a}.", "The {n} was {b}."),
    ("It is a {a} {n}.", "This is a {b} {n}."),
    ("The {n} looked very {a}", "The {n} looked {a}"),
    ("the answer is {d}", "{n} and {n} make {d}."),
    ("I think the {n} is {a}.", "I think that the {n} is {b}!"),
    ("You get {d}.", "The result is {d}."),
    ("It costs {d} dollars.", "The price is {d} dollars"),
    ("It is {d} o'clock.", "The time is {d}."),
    ("{d}", "The answer is {d}."),
    ("The {n}'s {m} is {a}.", "The {m} of the {n} is {b}"),
    ("It's a {a} {n}.", "It is a {a} {n}!"),
    ("They don't like the {n}.", "They do not like the {n}."),
    ("Today the {n} is {a}.", "The {n} is {b} today."),
    ("Yes.", "Yes, it is."),
    ("There are {w} of the {n}.", "There are {d} of the {n}."),
    ("The {n} tasted {a}.", "The {n} was {a}."),
    ("I feel {a} today.", "Today I am {b}."),
    ("A {n} is {a}.", "{n} are {a}."),
]
#: Answers of which one gives another fact.
FACTS = [
    ("It is {c}.", "It is {e}."),
    ("The answer is {w}.", "The answer is {v}."),
    ("{N} wrote the {n}.", "{M} wrote the {n}."),
    ("It is {a} to do so.", "It is not {a} to do so."),
    ("It is {o} to mix them.", "It is {p} to mix them."),
    ("There are {d} of them.", "There are {f} of them."),
    ("The {n} bit the {m}.", "The {m} bit the {n}."),
    ("It costs {d} dollars.", "It costs {d} euros."),
    ("{N} is taller than {M}.", "{M} is taller than {N}."),
    ("The number of {n} is {d}.", "The number of {m} is {d}."),
    ("It begins on {x}.", "It begins on {y}."),
    ("They like {n} and hate {m}.", "They hate {n} and like {m}."),
]


def _said(rng: random.Random, frames: list[tuple[str, str]], vocabulary: list[str]) -> tuple[str, str]:
    (first, second), (a, b) = rng.choice(frames), rng.sample(rng.choice(ALIKE).split(), 2)
    (n, m), (number, other) = rng.sample([word for word in vocabulary if len(word) > 3], 2), rng.sample(range(2, 12), 2)
    spelt = "two three four five six seven eight nine ten eleven".split()  # noqa: SIM905
    colours = rng.sample("red blue green yellow black white brown pink".split(), 2)  # noqa: SIM905
    days = rng.sample("Monday Tuesday Friday Sunday May June".split(), 2)  # noqa: SIM905
    against = rng.choice(["dangerous fine", "safe unsafe", "legal illegal", "wise foolish", "easy hard", "right wrong"])
    opposite = rng.sample(against.split(), 2)
    values = {"a": a, "b": b, "n": n, "m": m, "d": number, "f": other, "w": spelt[number - 2], "v": spelt[other - 2]}
    values |= {"N": n.capitalize(), "M": m.capitalize(), "c": colours[0], "e": colours[1], "x": days[0], "y": days[1]}
    values |= {"o": opposite[0], "p": opposite[1]}
    return first.format(**values), second.format(**values)


def unclear(rng: random.Random, vocabulary: list[str]) -> tuple[str, str]:
    """Two answers that say the same in other words."""
    return _said(rng, FRAMES, vocabulary)


def different(rng: random.Random, vocabulary: list[str]) -> tuple[str, str]:
    """Two short answers that differ in a fact."""
    return _said(rng, FACTS, vocabulary)
