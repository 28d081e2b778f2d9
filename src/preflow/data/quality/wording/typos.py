"""Two prompts that are one: what slips of the hand, labels and filling words change, and nothing else."""

import re
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import OSA, Levenshtein

from preflow.data.quality.wording.equivalence import OPPOSITES

#: Labels and requests that data sets put around one and the same question.
_BEFORE = re.compile(
    r"[\s#*]*(?:(?:question|q|problem|prompt|task|exercise|instruction|input|query|user|human)\s*\d{0,3}\s*[*]*[:.)][\s*]+"
    r"|(?:please\s+)?(?:answer|solve|consider)\s+(?:the|this)\s+(?:following\s+)?(?:\w+\s+)?(?:question|problem)[^\n:?]{0,40}:\s*"
    r"|below is an instruction[^\n]*\n+)",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(?:\s+[#*]*\s*(?:the\s+)?(?:final\s+)?(?:answer|a|response|solution|output|assistant|reasoning)\s*[*]*:[\s*]*"
    r"|\s(?:let'?s\s+)?think\s+(?:about\s+(?:this|it)\s+)?step[ -]by[ -]step\s*[.:]?\s*)\Z",
    re.IGNORECASE,
)
#: Words that a prompt may have or lack and still ask the same.
_FILLERS = frozenset(("a", "an", "the", "please", "very", "just", "also", "that", "kindly"))
#: Syllables that turn a word into its opposite.
_NEGATES = ("un", "in", "im", "il", "ir", "dis", "non", "a", "anti")
#: Fewest letters of a word that one other letter leaves recognisable: Iran is not Iraq, a cat is no bat.
_LONG = 5


def unwrap(text: str) -> str:
    """A prompt without the labels around it, such as ``Question:`` and ``Answer:``; as it was where nothing is left."""
    if ":" not in text and "step" not in text:  # nearly every prompt
        return text
    bare = text
    for _ in range(2):  # "### Instruction: Question: ..."
        begins = _BEFORE.match(bare)
        bare = bare[begins.end() :] if begins else bare
        bare = _AFTER.sub("", bare) if bare.rstrip(" \n*").endswith((":", "step", "step.")) else bare
    return bare if bare.strip() else text


def slips_between(left: Sequence[str], right: Sequence[str]) -> int | None:
    """Letters lost, added, swapped or changed between two lists of words; none where a word is another."""
    counts = Counter(left), Counter(right)
    ours, theirs = list((counts[0] - counts[1]).elements()), list((counts[1] - counts[0]).elements())
    total = _parted(ours, theirs) + _parted(theirs, ours)
    for word in list(ours):
        like = next((other for other in theirs if _slip(word, other)), None)
        if like is not None:
            ours.remove(word)
            theirs.remove(like)
            total += 1
    rest = [*ours, *theirs]
    return total + sum(map(len, rest)) if set(rest) <= _FILLERS else None


def _parted(whole: list[str], parts: list[str]) -> int:
    """Take out words of the one side that stand as two on the other: a space was lost or added."""
    found = 0
    for word in list(whole):
        for at in range(1, len(word)):
            first, last = word[:at], word[at:]
            if first in parts and last in parts and (first != last or parts.count(first) > 1):
                whole.remove(word)
                parts.remove(first)
                parts.remove(last)
                found += 1
                break
    return found


def _slip(left: str, right: str) -> bool:
    """Whether one letter lost, added, changed or swapped with the next makes a word of another."""
    if abs(len(left) - len(right)) > 1 or (left in OPPOSITES and right in OPPOSITES):
        return False
    short, long = sorted((left, right), key=len)
    if any(long == syllable + short for syllable in _NEGATES):
        return False
    if len(short) == len(long) and Levenshtein.distance(left, right) == 1:
        return len(short) >= _LONG
    return len(short) > 1 and OSA.distance(left, right, score_cutoff=1) == 1
