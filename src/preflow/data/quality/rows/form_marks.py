"""Shallow marks of form of an answer: what may predict a label without being what it is about."""

import re

import numpy as np
from numpy.typing import NDArray

#: Shallow marks of form, by name: one bit each, in this order.
CUES = (
    "a list",
    "bold text",
    "headings",
    "a code block",
    "several paragraphs",
    "an exclamation mark",
    "a question at the end",
    "a digit",
    "a word of apology",
)
_LIST = re.compile(r"^[ \t]*([-*+•‣▪◦]|\d+[.)])[ \t]", re.MULTILINE)


def form_marks(answers: list[str]) -> NDArray[np.uint16]:
    """The marks of form of each of N answers as bits in the order of ``CUES``, shape ``(N,)``."""
    return mark_bits(answers, np.array([any(map(str.isdigit, text)) for text in answers], dtype=np.bool_))


def mark_bits(answers: list[str], digits: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The same where it is known which of them have a digit."""
    marks = (
        ["\n" in text and _LIST.search(text) is not None for text in answers],
        ["**" in text for text in answers],
        ["\n#" in text for text in answers],
        ["```" in text for text in answers],
        ["\n\n" in text for text in answers],
        ["!" in text for text in answers],
        [text.endswith("?") for text in answers],
        digits,
        ["orry" in text or "polog" in text for text in answers],
    )
    found = np.zeros(len(answers), np.uint16)
    for bit, mark in enumerate(marks):
        found |= np.asarray(mark, bool).astype(np.uint16) << np.uint16(bit)
    return found
