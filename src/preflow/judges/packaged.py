"""Judges that come with Preflow: functions that run offline and are called what they are."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preflow.data.quality.wording.paraphrase import TABLE, word_vectors
from preflow.data.text import folded_words
from preflow.errors import JudgeError
from preflow.fingerprints.files import file_digest

#: The reward model's weights, one for each part of a word's vector: ``recipes/demo/judge.py`` makes them.
WEIGHTS = Path(__file__).with_name("concrete_help.npz")


def concrete_help(prompt: str, first: str, second: str) -> str:
    """The answer with the higher reward wins, which is linear in what its words mean; equal rewards are a tie.

    A reward model of 127 weights, trained on the 510 training pairs of the demo's recipe (one answer takes a concrete
    step, the other evades). It reads no prompt and no order of words, and knows no other subject.
    """
    rewards = [reward(text, _weights("b90dab4345afcd0d", "9deae0eaa1326e0b")) for text in (first, second)]
    return "tie" if rewards[0] == rewards[1] else "first" if rewards[0] > rewards[1] else "second"


def reward(text: str, weights: NDArray[np.float64]) -> float:
    """The weighted mean of its words' vectors times the weights; 0 where it has no word of the table.

    Args:
        text: An answer.
        weights: Shape ``(D,)``.
    """
    return float(mean_vector(text) @ weights)


def mean_vector(text: str) -> NDArray[np.float64]:
    """The mean of a text's word vectors, common words counting less, shape ``(D,)`` (Arora et al. 2017, equation 1)."""
    rows, vectors, weights = word_vectors()
    known = [rows[word] for word in folded_words(text) if word in rows]
    if not known:
        return np.zeros(vectors.shape[1])
    return np.average(vectors[known].astype(np.float64), axis=0, weights=weights[known])


@cache
def _weights(weights: str, vectors: str) -> NDArray[np.float64]:
    """The weights, from the files of these digests: a judge's identity is its source, which so names what it reads."""
    for file, digest in ((WEIGHTS, weights), (TABLE, vectors)):
        if not file_digest(file).startswith(digest):
            raise JudgeError(f"{file} is not the file that this judge was tested with: install Preflow again")
    with np.load(WEIGHTS) as file:
        return np.asarray(file["weights"], np.float64)
