"""Answers that say their prompt again, word for word, whatever its case, marks and spaces are."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.process import cpdist

from preflow.data.quality.rows.word_hashes import Words
from preflow.data.text import folded_words, visible

Bools = NDArray[np.bool_]
#: Fewest words of a prompt that an answer can be said to begin with, and to hold anywhere. A greeting may be returned.
_BEGUN = 3
_HELD = 4
#: Characters of every text that are compared letter by letter; more would cost the square.
_COMPARED = 2000
#: Characters of those texts that share a prefix.
_WHOLE = 100_000
#: What stands before words that are quoted, or that begin a sentence.
_BEGINS = "[\n.:;,!?\"'`\u2018\u201c\u201e\u00ab>(\\[*_-]\\s*"


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
    return fuzz.ratio(left[:_WHOLE].lower(), right[:_WHOLE].lower()) / 100


def _holds(prompts: list[str], asked: Words, answers: list[str], given: Words) -> Bools:
    """Whether the words of the one text stand in the other: at its beginning, or as a sentence of their own."""
    found = np.zeros(len(prompts), bool)
    able = np.flatnonzero((asked.counts >= _BEGUN) & (given.counts >= asked.counts))
    if not len(able):
        return found
    first = np.zeros(len(prompts), np.uint64)
    first[able] = asked.hashes[asked.offsets[able]]
    # Hardly any word of an answer is the first of its prompt: only from there on the words are compared.
    for at in np.flatnonzero(given.hashes == np.repeat(first, given.counts)):
        row = int(np.searchsorted(given.offsets, at, side="right")) - 1
        begins, count = at == given.offsets[row], int(asked.counts[row])
        if found[row] or count < (_BEGUN if begins else _HELD) or at + count > given.offsets[row + 1]:
            continue
        start = asked.offsets[row]
        if np.array_equal(asked.hashes[start : start + count], given.hashes[at : at + count]):
            found[row] = begins or _quotes(answers[row], prompts[row])
    return found


def _quotes(answer: str, prompt: str) -> bool:
    """Whether an answer that holds the prompt's words says them on their own: "Glad to explain what X is" does not."""
    words = r"[\W_]*".join(map(re.escape, folded_words(prompt)))
    plain = unicodedata.normalize("NFKC", visible(answer))
    if re.search(_BEGINS + words, plain, re.IGNORECASE) is not None:
        return True
    return prompt[:1].isupper() and prompt.rstrip(" .!?\n") in answer
