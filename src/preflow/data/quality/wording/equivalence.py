"""What can be said of one text, or of two, without knowing any other row."""

# glossary: allow-file nobody (an English word of a table)

import re
from collections import Counter
from collections.abc import Sequence

from preflow.data.quality.wording.synonyms import FILLERS, FRAME, MEANING, NUMBERS
from preflow.data.text import folded_words

#: Words of which one text having another number than the other means that they say different things.
OPPOSITES = frozenset(
    (  # noqa: SIM905 - a list of a hundred strings is no clearer
        "not no never none nobody nothing neither nor cannot t without yes true false right wrong correct incorrect "
        "before after more less up down left on off always all some few many first last good bad hot cold high low "
        "open closed buy sell increase decrease can won don unable able"
    ).split()
)
#: Short forms, in the order in which they are written out; what is left of ``'s`` is a genitive.
_SHORT = [
    (re.compile(pattern), full)
    for pattern, full in (
        (r"\bcan't\b|\bcannot\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"'re\b", " are"),
        (r"'m\b", " am"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
        (r"\b(it|that|he|she|there|here|what|who|where|how)'s\b", r"\1 is"),
        (r"'s\b", ""),
        (r"\bof course\b", "sure"),
        (r"\b(?:help|assist) you\b", "help"),
        (r"\bi feel\b", "i am"),
        (r"\bworking out\b", "exercise"),
    )
]
#: What may follow "Yes" or "No" and add nothing.
_ECHO = frozenset("it is he she they that this are am do does i can you was were will sure certainly".split())  # noqa: SIM905
#: Words whose two neighbours have different roles, so that their order counts.
_ORDERED = frozenset("than to from before after by with over under not".split())  # noqa: SIM905
#: Most words whose order makes no difference: "sunny and warm".
_FEW = 3
_DIGIT = re.compile("[0-9]")
_BE = frozenset(("is", "are", "was", "were", "equals"))


def numbers_of(words: Sequence[str]) -> list[str]:
    """The words that hold a digit, in order."""
    whole = " ".join(words)
    if whole.isascii() and _DIGIT.search(whole) is None:  # nearly every text
        return []
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

    They give the same number in other words of the kind "the answer is", or their words are the same up to short
    forms, order, words that add nothing and the synonyms of a small table. Any other word is a difference: it may be a
    fact, or what makes an answer rude.
    """
    left, right = meant(chosen), meant(rejected)
    ours, theirs = numbers_of(left), numbers_of(right)
    if not left or not right:
        return False
    if ours or theirs:
        return _same_number(left, right, ours, theirs)
    if left[0] == right[0] and left[0] in {"yes", "no"} and {*left[1:], *right[1:]} <= _ECHO:
        return True
    left, right = ([word for word in words if word not in FILLERS] for words in (left, right))
    return bool(left) and Counter(left) == Counter(right) and _same_order(left, right)


def _same_number(left: list[str], right: list[str], ours: list[str], theirs: list[str]) -> bool:
    """Whether two answers give one number, and only say otherwise that they do."""
    rest = [set(a) - set(b) - set(numbers) for a, b, numbers in ((left, right, ours), (right, left, theirs))]
    if ours == theirs and rest[0] | rest[1] <= FRAME:
        return True
    if not ours or not theirs or not (left[-1] == right[-1] == ours[-1] == theirs[-1]):
        return False
    # "Two and two make 4", where the other says "the answer is 4"; not "it is obviously 4" for "it is 4".
    plain, spoken = sorted(rest, key=lambda words: len(words - FRAME))
    return min(len(ours), len(theirs)) == 1 and bool(plain - FILLERS) and plain <= FRAME and not spoken & OPPOSITES


def _same_order(left: list[str], right: list[str]) -> bool:
    """Whether the order of the same words makes no difference: a part moved to an end, or "is" turned round."""
    # Right is a rotation of left where left written twice contains it; no word holds the mark between them.
    if "\0".join(("", *right, "")) in "\0".join(("", *left, *left, "")):
        return True
    parts = [_around_is(words) for words in (left, right)]
    if _ORDERED & set(left) or not all(parts):
        return False
    (one, two), (other, another) = parts
    return (_reordered(one, other) and _reordered(two, another)) or (one == another and two == other)


def _around_is(words: list[str]) -> list[list[str]]:
    """The words before and after the one "is"; nothing where there are none or several."""
    places = [at for at, word in enumerate(words) if word in _BE]
    return [words[: places[0]], words[places[0] + 1 :]] if len(places) == 1 else []


def _reordered(left: list[str], right: list[str]) -> bool:
    return left == right or (len(left) <= _FEW and sorted(left) == sorted(right))


def meant(text: str) -> list[str]:
    """The words of a text in full, with numbers as digits and one word for each meaning of the table."""
    text = text.lower().replace("\u2019", "'")
    for pattern, full in _SHORT:
        text = pattern.sub(full, text)
    return [MEANING.get(word, word) for word in _digits(folded_words(text))]


def _digits(words: list[str]) -> list[str]:
    """Number words as digits: ``twenty one`` is 21."""
    found: list[str] = []
    for word in words:
        number = NUMBERS.get(word, word)
        tens = words and found and found[-1] in {"20", "30", "40", "50", "60", "70", "80", "90"}
        if tens and word in NUMBERS and 0 < int(number) < 10:
            found[-1] = str(int(found[-1]) + int(number))
        else:
            found.append(number)
    return found
