"""What can be said of one text, or of two, without knowing any other row."""

import re
from collections import Counter
from collections.abc import Sequence

from preflow.data.words import folded_words

#: Words of which one text having another number than the other means that they say different things.
OPPOSITES = frozenset(
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


def numbers_of(words: Sequence[str]) -> list[str]:
    """The words that hold a digit, in order."""
    return [word for word in words if any(char.isdigit() for char in word)]


def may_be_alike(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two similar texts may mean the same: their numbers agree in order, and their negations in number."""
    if numbers_of(left) != numbers_of(right):
        return False
    differ = Counter(left)
    differ.subtract(right)
    return not any(differ[word] for word in OPPOSITES & differ.keys())


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
    if differ & OPPOSITES or differ & (_names(chosen) | _names(rejected)):
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
