"""English words that mean the same in nearly every short answer, and words that add nothing.

Written by hand for ``no_clear_winner``; the groups are in ``synonyms.txt``. A word belongs there only where putting one
for the other changes no fact: colours, names, numbers and degrees do not.
"""

import re
from pathlib import Path

#: Part of speech, as the tables give it, to the endings of its words.
ENDINGS = {"a": ("", "er", "est", "ly"), "n": ("", "s"), "v": ("", "s", "ed", "ing"), "w": ("",)}
#: Words that an answer may have or lack and still say the same.
FILLERS = frozenset(
    (  # noqa: SIM905
        "a an the our very really quite so just also too rather indeed truly simply it its this that well then "
        "actually your of"
    ).split()
)
_FRAME = FILLERS | frozenset(
    (  # noqa: SIM905
        "is are be was answer result solution sum total value number equals equal = makes make gives give get you we i "
        "of price cost costs time clock o therefore thus hence final there have has think comes to in"
    ).split()
)
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        (  # noqa: SIM905
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        ).split()
    )
} | {
    word: f"{ten}0"
    for ten, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
#: ``big``, ``stop``: their last letter is doubled before an ending that begins with a vowel.
_SHORT_VOWEL = re.compile("[^aeiou]*[aeiou][^aeiouwxy]")


def _ending(word: str, ending: str) -> str:
    """A word with an ending, as English mostly writes it."""
    if ending in {"er", "est", "ed", "ly", "s"} and len(word) > 2 and word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + {"er": "ier", "est": "iest", "ed": "ied", "ly": "ily", "s": "ies"}[ending]
    if ending in {"er", "est", "ed", "ing"} and word.endswith("e"):
        return word[:-1] + ending
    if ending in {"er", "est", "ed", "ing"} and _SHORT_VOWEL.fullmatch(word):
        return word + word[-1] + ending
    if ending == "s" and word.endswith(("s", "sh", "ch", "x")):
        return word + "es"
    return word + ending


def with_endings(word: str, endings: tuple[str, ...]) -> list[str]:
    """The forms of a word."""
    return [_ending(word, ending) for ending in endings]


def table_lines(name: str) -> list[tuple[str, str]]:
    """Part of speech and words of each group of a table in this folder; lines that begin with ``#`` are comments."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [(line[0], line[1:]) for line in text.splitlines() if line and not line.startswith("#")]


def _table() -> dict[str, str]:
    """Each word to the first of its group."""
    found: dict[str, str] = {}
    for part_of_speech, line in table_lines("synonyms.txt"):
        words = line.split()
        for ending in ENDINGS[part_of_speech]:
            first = _ending(words[0], ending)
            for word in words:
                found.setdefault(_ending(word, ending), found.get(first, first))
    return found


MEANING = _table()
#: Words around the number that an answer is about.
FRAME = frozenset(MEANING.get(word, word) for word in _FRAME)
