"""What can be said of one text, or of two, without knowing any other row."""

import re
from collections import Counter
from collections.abc import Sequence

from preflow.data.words import folded_words

_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd]")
#: UTF-8 that was read as Windows-1252, Latin-1 or Windows-1251 shows as a lead byte's letter and a trail byte's sign.
_MOJIBAKE = re.compile(
    "[\u00c2-\u00f4\u0420\u0421\u0413\u0432][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039"
    "\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178\u0400-\u040f\u0450-\u045f\u0490\u0491]"
)
#: Words of which one text having another number than the other means that they say different things.
_OPPOSITES = frozenset(
    (  # noqa: SIM905 - a list of a hundred strings is no clearer
        "not no never none nobody nothing neither nor cannot t without yes true false right wrong correct incorrect "
        "before after more less up down left on off always all some few many first last good bad hot cold high low "
        "open closed buy sell increase decrease can won don unable able"
    ).split()
)
#: Words that an answer may have or lack and still say the same.
_FILLERS = frozenset(
    (  # noqa: SIM905
        "a an the very really quite so just also too rather indeed truly simply is are was it its that this of to and "
        "well then here there now actually basically"
    ).split()
)
_SHARED = 2
#: Fewest words of an answer that says something about the number it ends on.
_SENTENCE = 3


def has_control(text: str) -> bool:
    """Whether the text holds control characters (tab and line ends apart) or replacement characters."""
    return (not text.isprintable() and _CONTROL.search(text) is not None) or "\ufffd" in text


def has_mojibake(text: str) -> bool:
    """Whether the text was once read in a wrong encoding; ftfy decides where a quick look finds a sign of it."""
    if text.isascii() or _MOJIBAKE.search(text) is None:
        return False
    import ftfy

    return ftfy.fix_encoding(text) != text


def numbers_of(words: Sequence[str]) -> list[str]:
    """The words that hold a digit, in order."""
    return [word for word in words if any(char.isdigit() for char in word)]


def may_be_alike(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two similar texts may mean the same: their numbers agree in order, and their negations in number."""
    if numbers_of(left) != numbers_of(right):
        return False
    differ = Counter(left)
    differ.subtract(right)
    return not any(differ[word] for word in _OPPOSITES & differ.keys())


def no_clear_winner(chosen: str, rejected: str) -> bool:
    """Whether two short answers say much the same, as far as the surface shows.

    They end on the same number, or they differ in few words of which none is a number, an opposite or a name, or in a
    word that adds nothing. An added word that is no filler is a difference: it may be what makes an answer rude.
    """
    left, right = folded_words(chosen), folded_words(rejected)
    ours, theirs = numbers_of(left), numbers_of(right)
    if ours or theirs:
        sentences = min(len(left), len(right)) >= _SENTENCE
        return sentences and bool(ours and theirs) and left[-1] == right[-1] == ours[-1] == theirs[-1]
    only_left, only_right = Counter(left) - Counter(right), Counter(right) - Counter(left)
    differ = set(only_left) | set(only_right)
    if differ & _OPPOSITES or differ & (_names(chosen) | _names(rejected)):
        return False
    counts = only_left.total(), only_right.total()
    shared = len(left) - counts[0]
    if shared < _SHARED or not left or not right:
        return False
    if min(counts) == 0:
        return differ <= _FILLERS
    meant = [set(side) - _FILLERS for side in (only_left, only_right)]
    return (
        max(counts) <= max(1, shared)
        and max(map(len, meant)) <= 2
        and abs(len(meant[0]) - len(meant[1])) <= 1
        and (bool(meant[0]) == bool(meant[1]))
    )


def _names(text: str) -> set[str]:
    """Words with a capital that do not begin a sentence, in the form of ``folded_words``."""
    found = re.findall(r"(?<![.!?:\n])(?<=[\w,;'’\"“] )([A-Z]\w*)", text)
    return {word for name in found for word in folded_words(name)}
