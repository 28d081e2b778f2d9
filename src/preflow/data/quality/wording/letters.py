"""How alike two texts are letter by letter, in time linear in their length where they are long."""

from itertools import pairwise

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

#: Characters up to which two texts are compared as a whole.
_WHOLE = 8192
#: Characters of the stretches of longer texts that are compared.
_STRETCH = 2048


def ratio(left: str, right: str) -> float:
    """Similarity of two texts in per cent as ``rapidfuzz.fuzz.ratio`` counts it, from their Indel distance.

    Exact up to 8,192 characters. Of longer texts that are not of one beginning and one end, what is left between these
    is compared stretch by stretch: what the script of edits of all stretches costs is at least the distance, so the
    similarity found is at most the true one.
    """
    if max(len(left), len(right)) <= _WHOLE:
        return float(fuzz.ratio(left, right))
    total = len(left) + len(right)
    head = _common(left, right)
    left, right = left[head:], right[head:]
    tail = _common(left[::-1], right[::-1])
    left, right = left[: len(left) - tail], right[: len(right) - tail]
    count = -(-max(len(left), len(right)) // _STRETCH)
    edges = [(place * len(left) // count, place * len(right) // count) for place in range(count + 1)] if count else []
    found = sum(Indel.distance(left[a:c], right[b:d]) for (a, b), (c, d) in pairwise(edges))
    return 100 * (1 - found / total)


def _common(left: str, right: str) -> int:
    """Characters with which both texts begin."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        half = (low + high + 1) // 2
        if left[low:half] == right[low:half]:
            low = half
        else:
            high = half - 1
    return low
