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


#: Characters that nobody sees, alone or around a text.
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
