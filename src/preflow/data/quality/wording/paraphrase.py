"""Whether two answers say the same in other words: their words are laid side by side by what they mean.

Each word of one answer is matched with the word of the other whose vector is nearest (the alignment of Zhang et al.
2020, arXiv:1904.09675, equation 3, with vectors that know no context), and common words count less (Arora et al. 2017,
"A simple but tough-to-beat baseline for sentence embeddings", equation 1). The vectors come from a table that
``meaning_table`` makes of a sentence encoder. What vectors cannot see is asked before: numbers, names, negations, and
words that exclude each other. Answers that hardly share a word are not recognised.
"""

# glossary: allow-file nobody (an English word of a table)

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from preflow.data.quality.wording.antonyms import exclude_each_other
from preflow.data.quality.wording.equivalence import meant, numbers_of
from preflow.data.quality.wording.synonyms import FILLERS

TABLE = Path(__file__).with_name("meaning_table.npz")
#: Letters that two answers share at least, as ``rapidfuzz.fuzz.ratio`` counts them: hardly any said again has less.
LEAST_LETTERS = 0.46
#: Fewest words of an answer; ``no_clear_winner`` judges short ones word by word.
_FEWEST = 5
#: Most different words of an answer that are laid side by side with those of the other.
_MOST = 400
#: Letters of a word that are compared with those of another.
_LONGEST = 64
#: Likeness of letters from which a word that the table does not know is another form of one that it meets.
_SAME_STEM = 80
#: Least share of an answer's words that the table knows; others are in another language, or code.
_KNOWN = 0.7
_NEGATIONS = frozenset(
    (  # noqa: SIM905
        "not no never none nobody nothing neither nor cannot without unable hardly unless lack lacks lacking fail "
        "fails failed"
    ).split()
)
#: Words that make an answer polite, rude or sure of itself: what one answer alone has of them makes a winner.
_TONE = frozenset(
    (  # noqa: SIM905
        "please kindly thank glad happy hope welcome appreciate grateful gladly pleasure delighted afraid honor honour "
        "dear friend gentle respectfully indeed obviously duh seriously honestly frankly listen okay whatever genius "
        "idiot idiotic stupid dumb damn freaking bloody hell crap ridiculous ridiculously lazy silly moron ugh geez"
    ).split()
)
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z]\w+")


@cache
def word_vectors() -> tuple[dict[str, int], NDArray[np.float32], NDArray[np.float32]]:
    """Each word's row, unit vectors ``(N, D)``, and weights ``(N,)`` (0 to 1)."""
    with np.load(TABLE) as table:
        vectors, weights = (table[name].astype(np.float32) for name in ("vectors", "weights"))
        rows = {word: row for row, word in enumerate(str(table["words"]).split())}
    return rows, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), weights


def shared_meaning(left: str, right: str) -> float:
    """How far two answers say the same in other words, 0 to 1; 0 where they differ in a fact or one merely says more.

    Args:
        left: An answer in English.
        right: Another answer to the same prompt.
    """
    ours, theirs = meant(left), meant(right)
    if min(len(ours), len(theirs)) < _FEWEST or _facts(ours) != _facts(theirs):
        return 0.0
    only, other = (set(a) - set(b) - FILLERS for a, b in ((ours, theirs), (theirs, ours)))
    # What one answer merely adds is a detail or a tone; both have words of their own.
    if not only or not other or (only | other) & _TONE or exclude_each_other(only, other):
        return 0.0
    return alignment(ours, theirs) if _names(left, right) else 0.0


def _facts(words: list[str]) -> tuple[Counter[str], int]:
    """The numbers of an answer but 1, which is an article too, and how often it denies."""
    numbers = Counter(word for word in numbers_of(words) if word != "1")
    return numbers, sum(word in _NEGATIONS for word in words)


def _names(left: str, right: str) -> bool:
    """Whether every name within a sentence of the one text is somewhere in the other."""
    for text, other in ((left, right), (right, left)):
        names, said = {name.lower() for name in _NAME.findall(text)}, other.lower()
        if len(names) > _MOST or not all(name in said for name in names):
            return False
    return True


def alignment(left: list[str], right: list[str]) -> float:
    """How much of the meaning of each text's words the other has, 0 to 1: the lesser of both directions.

    0 for texts of more than 400 different words, since each is compared with each.

    Args:
        left: The words of a text.
        right: The words of another text.
    """
    ours, theirs = (Counter(word for word in words if not any(map(str.isdigit, word))) for words in (left, right))
    if not ours or not theirs or max(len(ours), len(theirs)) > _MOST:
        return 0.0
    likeness = _likeness(ours, theirs)
    return min(_covered(ours, likeness.max(axis=1)), _covered(theirs, likeness.max(axis=0)))


def _covered(words: Counter[str], best: NDArray[np.float32]) -> float:
    rows, _, weights = word_vectors()
    if sum(word in rows for word in words) < _KNOWN * len(words):
        return 0.0
    weight = np.array([count * (weights[rows[word]] if word in rows else 1.0) for word, count in words.items()])
    return float((best * weight).sum() / weight.sum())


def _likeness(left: Counter[str], right: Counter[str]) -> NDArray[np.float32]:
    """Likeness of each word to each, shape ``(len(left), len(right))``; by letters where the table lacks a word."""
    rows, vectors, _ = word_vectors()
    known = [np.array([word in rows for word in words]) for words in (left, right)]
    found = np.zeros((len(left), len(right)), np.float32)
    places = np.ix_(*known)
    found[places] = vectors[[rows[w] for w in left if w in rows]] @ vectors[[rows[w] for w in right if w in rows]].T
    if not (known[0].all() and known[1].all()):
        words = [[word[:_LONGEST] for word in side] for side in (left, right)]
        letters = process.cdist(*words, scorer=fuzz.ratio, score_cutoff=_SAME_STEM) / 100
        unknown = ~(known[0][:, None] & known[1][None, :])
        found[unknown] = letters[unknown]
    return found
