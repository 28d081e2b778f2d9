"""Answers that say their prompt again, word for word, whatever its case, marks and spaces are."""

import re
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.process import cpdist

from preflow.data.quality.rows.word_hashes import Hashes, Words
from preflow.data.quality.wording.letters import ratio
from preflow.data.text import compatible, folded_words, visible

Bools = NDArray[np.bool_]
#: Fewest words of a prompt that an answer can be said to begin with, and to hold anywhere. A greeting may be returned.
_BEGUN = 3
_HELD = 4
#: Characters of every text that are compared letter by letter; more would cost the square.
_COMPARED = 2000
#: What stands before words that are quoted, or that begin a sentence: a mark or the last line end before them.
_BEGINS = "(?:[.:;,!?\"'`\u2018\u201c\u201e\u00ab>(\\[*_-]\\s*+|\\n(?![^\\S\\n]*+\\n)[^\\S\\n]*+)"
#: What separates two words: no letter, digit, or sign that belongs to words.
_BETWEEN = r"(?:[^\w+/=<>%^$&@~\\]|_)*+"
#: Words of a prompt that are sought behind a mark, and hits of its first word that are looked at one by one.
_SOUGHT = 64
_FEW_HITS = 8
_FACTOR = 0x9E3779B97F4A7C15


def repeats(prompts: list[str], asked: Words, answers: list[str], given: Words, least: float) -> Bools:
    """Whether each answer repeats its prompt: nearly the same text, or all of its words one after the other.

    Args:
        prompts: N texts.
        asked: Their words.
        answers: N texts.
        given: Their words.
        least: Similarity (0 to 1) from which two texts are nearly the same.

    Returns:
        Shape ``(N,)``.
    """
    cutoff = 100 * least
    pairs = beginnings(prompts), beginnings(answers)
    found: Bools = cpdist(*pairs, scorer=fuzz.ratio, score_cutoff=cutoff, dtype=np.float32) >= cutoff
    for place in np.flatnonzero(found):
        found[place] = whole_similarity(prompts[place], answers[place], 1.0) >= least
    return (found & (asked.counts >= _HELD)) | _holds(prompts, asked, answers, given)


def beginnings(texts: list[str]) -> list[str]:
    """What is compared of every text."""
    return [text[:_COMPARED].lower() for text in texts]


def whole_similarity(left: str, right: str, begun: float) -> float:
    """Similarity of two texts that share a prefix, 0 to 1; ``begun`` where their beginnings are all there is."""
    if max(len(left), len(right)) <= _COMPARED:
        return begun
    return ratio(left.lower(), right.lower()) / 100


def _holds(prompts: list[str], asked: Words, answers: list[str], given: Words) -> Bools:
    """Whether the words of the one text stand in the other: at its beginning, or as a sentence of their own."""
    found = np.zeros(len(prompts), bool)
    able = np.flatnonzero((asked.counts >= _BEGUN) & (given.counts >= asked.counts))
    if not len(able):
        return found
    first = np.zeros(len(prompts), np.uint64)
    first[able] = asked.hashes[asked.offsets[able]]
    # Hardly any word of an answer is the first of its prompt: only from there on the words are compared.
    hits = np.flatnonzero(given.hashes == np.repeat(first, given.counts))
    rows = np.searchsorted(given.offsets, hits, side="right") - 1
    for row, start, stop in _runs(rows):
        count, begin = int(asked.counts[row]), int(given.offsets[row])
        words = asked.hashes[asked.offsets[row] : asked.offsets[row] + count]
        there = given.hashes[begin : given.offsets[row + 1]]
        places = _places(words, there, hits[start:stop] - begin)
        if places and places[0] == 0:
            found[row] = True
        elif places and count >= _HELD:
            found[row] = _quotes(answers[row], prompts[row])
    return found


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Each value of a rising list with the places where it begins and ends."""
    edges = [*np.flatnonzero(np.diff(rows, prepend=-1)).tolist(), len(rows)]
    return [(int(rows[start]), start, stop) for start, stop in pairwise(edges)]


def _places(words: Hashes, there: Hashes, hits: NDArray[np.int64]) -> list[int]:
    """Where words stand one after the other among others: the first place, and one more where that is the beginning.

    Args:
        words: Hashes of the words that are sought.
        there: Hashes of the words among which they are.
        hits: Places of the first word there, rising.
    """
    hits = hits[hits + len(words) <= len(there)]
    if len(hits) > _FEW_HITS:
        # Sums over windows leave the places where all words agree, so that the time stays linear in the words.
        factors = np.cumprod(np.full(len(there), _FACTOR, np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(there * factors)])
        wanted = (words * factors[: len(words)]).sum(dtype=np.uint64)
        ahead = np.concatenate([np.ones(1, np.uint64), factors])[hits]
        hits = hits[sums[hits + len(words)] - sums[hits] == wanted * ahead][:_FEW_HITS]
    return [at for at in hits.tolist() if np.array_equal(words, there[at : at + len(words)])]


def _quotes(answer: str, prompt: str) -> bool:
    """Whether an answer that holds the prompt's words says them on their own: "Glad to explain what X is" does not."""
    words = _BETWEEN.join(map(re.escape, folded_words(prompt)[:_SOUGHT]))
    plain = compatible(visible(answer))
    if re.search(_BEGINS + words, plain, re.IGNORECASE) is not None:
        return True
    return prompt[:1].isupper() and prompt.rstrip(" .!?\n") in answer
