"""Two prompts that are one: what slips of the hand, labels and filling words change, and nothing else."""

import re
from collections import Counter

from rapidfuzz.distance import OSA, Levenshtein

from preflow.data.quality.wording.equivalence import OPPOSITES

#: Labels and requests that data sets put around one and the same question. Quantifiers give nothing back and a run of
#: blanks is entered at its beginning alone, so that the time is linear whatever a text holds.
_BEFORE = re.compile(
    r"[\s#*]*+(?:(?:question|q|problem|prompt|task|exercise|instruction|input|query|user|human)"
    r"\s*+(?:\d{1,3}+\s*+)?[*]*+[:.)][\s*]++"
    r"|(?:please\s++)?(?:answer|solve|consider)\s++(?:the|this)\s++(?:following\s++)?(?:\w++\s++)?(?:question|problem)"
    r"[^\n:?]{0,40}+:\s*+|below is an instruction[^\n]*+\n++)",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(?:(?<!\s)\s++(?:[#*]++\s*+)?(?:the\s++)?(?:final\s++)?"
    r"(?:answer|a|response|solution|output|assistant|reasoning)\s*+[*]*+:[\s*]*+"
    r"|\s(?:let'?s\s++)?think\s++(?:about\s++(?:this|it)\s++)?step[ -]by[ -]step\s*+(?:[.:]\s*+)?)\Z",
    re.IGNORECASE,
)
#: Words that a prompt may have or lack and still ask the same.
_FILLERS = frozenset(("a", "an", "the", "please", "very", "just", "also", "that", "kindly"))
#: Syllables that turn a word into its opposite.
_NEGATES = ("un", "in", "im", "il", "ir", "dis", "non", "a", "anti")
#: Texts with more words that differ are not compared word by word, which would cost the square.
_MOST_DIFFER = 100
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


def slips_between(left: Counter[str], right: Counter[str]) -> int | None:
    """Letters lost, added, swapped or changed between the words of two texts; none where a word is another.

    None also where more than a hundred words differ.

    Args:
        left: How often each word is in the one text, in the order of their first places.
        right: The same of the other text.
    """
    ours, theirs = _surplus(left, right), _surplus(right, left)
    if max(len(ours), len(theirs)) > _MOST_DIFFER:
        return None
    total = _parted(ours, theirs) + _parted(theirs, ours)
    for word in list(ours):
        like = next((other for other in theirs if _slip(word, other)), None)
        if like is not None:
            ours.remove(word)
            theirs.remove(like)
            total += 1
    rest = [*ours, *theirs]
    return total + sum(map(len, rest)) if set(rest) <= _FILLERS else None


def _surplus(of: Counter[str], over: Counter[str]) -> list[str]:
    """The words that one text has more often than the other, as often as it has them more."""
    differ = {word for word, _ in of.items() - over.items()}
    return [word for word in of if word in differ for _ in range(of[word] - over[word])] if differ else []


def _parted(whole: list[str], parts: list[str]) -> int:
    """Take out words of the one side that stand as two on the other: a space was lost or added."""
    found = 0
    if max(len(whole), len(parts)) > _MOST_DIFFER:
        return found
    for word in list(whole):
        for at in sorted({len(part) for part in parts}):
            first, last = word[:at], word[at:]
            if last and first in parts and last in parts and (first != last or parts.count(first) > 1):
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
    letters = Levenshtein.distance(left, right, score_cutoff=2)  # a swap counts as two
    if letters > 2:
        return False
    if len(short) == len(long) and letters == 1:
        return len(short) >= _LONG
    return len(short) > 1 and OSA.distance(left, right, score_cutoff=1) == 1
