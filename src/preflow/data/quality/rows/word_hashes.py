r"""Texts as words, many at a time: what duplicates, contradictions and near copies are sought by.

Words are compared without case, marks and white space, so that a text keeps its words when it is typed again by another
hand. Signs that carry meaning in mathematics and code (``+ / = < > % ^ $ & @ ~ \``) stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from preflow.data.text import WORD_BYTES, fold

Hashes = NDArray[np.uint64]
#: Slots of a MinHash signature, and of each band of it: 12 bands of 4 miss one pair in 500 at Jaccard 0.8.
SLOTS = 48
BAND = 4
_RANDOM = np.random.default_rng(20_211)
_FACTORS = _RANDOM.integers(0, 1 << 31, SLOTS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SHIFTS = _RANDOM.integers(0, 1 << 32, SLOTS, dtype=np.uint32)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ROLE = np.uint64(0xD6E8FEB86659FD93)


def mix(values: Hashes) -> Hashes:
    """Scatter bits, so that sums and minima of what was mixed behave like those of random numbers (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def combine(*parts: Hashes) -> Hashes:
    """One hash of several, in which their order counts."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = mix(total * _MIX + part + _ROLE)
    return total


@dataclass(frozen=True, slots=True)
class Words:
    """The words of N texts.

    Attributes:
        hashes: Of every word, one text after the other.
        offsets: Where each text's words begin in ``hashes``, and the end, shape ``(N + 1,)``.
        digits: Whether a word holds a digit, one value for every word.
    """

    hashes: Hashes
    offsets: NDArray[np.int64]
    digits: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Words":
        """Split texts into words and hash each."""
        encoded = pa.array([text if text.isascii() else fold(text) for text in texts], type=pa.large_string())
        _, offsets, data = encoded.buffers()
        folded = pa.py_buffer((data.to_pybytes() if data is not None else b"").translate(WORD_BYTES))
        array = pa.Array.from_buffers(pa.large_string(), len(texts), [None, offsets, folded])
        lists = pc.ascii_split_whitespace(array)
        found, starts = lists.values, np.asarray(lists.offsets).astype(np.int64)
        full = np.asarray(pc.greater(pc.binary_length(found), 0)).astype(
            bool
        )  # white space at an end leaves an empty word
        starts = np.concatenate([[0], np.cumsum(full)])[starts]
        index = pc.dictionary_encode(found)
        known = np.fromiter(map(xxh3_64_intdigest, index.dictionary.cast(pa.large_binary()).to_pylist()), np.uint64)
        digits = np.asarray(pc.match_substring_regex(index.dictionary, r"\p{Nd}")).astype(bool)
        codes = np.asarray(index.indices)[full]
        return cls(known[codes], starts, digits[codes])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words of each text, shape ``(N,)``."""
        return np.diff(self.offsets)

    def every(self, side: int, step: int) -> "Words":
        """The words of one text of each ``step`` texts."""
        starts, stops = self.offsets[side:-1:step], self.offsets[side + 1 :: step]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(stops - starts)])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], stops - starts)
        return Words(self.hashes[places], offsets, self.digits[places])

    def bags(self) -> Hashes:
        """A hash of each text's words in any order, shape ``(N,)``; 0 for a text without words."""
        return self._sums(mix(self.hashes))

    def halves(self) -> Hashes:
        """A hash of the first and of the last half of each text's words, shape ``(2, N)``: a slip spoils one alone."""
        totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(self.hashes), dtype=np.uint64)])
        starts, stops, half = self.offsets[:-1], self.offsets[1:], self.counts // 2
        return np.stack([totals[starts + half] - totals[starts], totals[stops] - totals[stops - half]])

    def sequences(self) -> Hashes:
        """A hash of each text's words in their order, shape ``(N,)``."""
        place = np.arange(len(self.hashes), dtype=np.uint64) - np.repeat(self.offsets[:-1], self.counts).astype(
            np.uint64
        )
        return self._sums(mix(self.hashes + (place + np.uint64(1)) * _MIX))

    def openings(self, length: int) -> Hashes:
        """A hash of each text's first words, shape ``(N,)``; 0 for a text that has fewer and one more."""
        long = self.counts > length
        total = np.zeros(len(long), np.uint64)
        for place in range(length):
            at = self.offsets[:-1][long] + place
            total[long] = mix(total[long] * _MIX + self.hashes[at])
        return total

    def numbers(self) -> Hashes:
        """A hash of each text's words that hold a digit, in their order, shape ``(N,)``; 0 where there is none."""
        before = np.concatenate([[0], np.cumsum(self.digits)])
        return Words(self.hashes[self.digits], before[self.offsets], self.digits[self.digits]).sequences()

    def _sums(self, values: Hashes) -> Hashes:
        totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
        return np.asarray(totals[self.offsets[1:]] - totals[self.offsets[:-1]])

    def signatures(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.uint32]:
        """MinHash signatures (Broder 1997) of stretches of words, shape ``(N, SLOTS)``; all ones for one without words.

        Made here, since libraries give each signature as a Python list, which takes longer than to make it.

        Args:
            starts: First word of each stretch, shape ``(N,)``, rising.
            stops: The word after its last, shape ``(N,)``.
        """
        found = np.full((SLOTS, len(starts)), 0xFFFFFFFF, np.uint32)
        full = np.flatnonzero(stops > starts)
        if len(full):
            # Minima from each start to the next edge; those from a stop to the next start are not wanted.
            edges = np.stack([starts[full], stops[full]], axis=1).ravel()
            keep = edges < len(self.hashes)
            scattered = (mix(self.hashes) >> np.uint64(32)).astype(np.uint32)
            values = np.empty_like(scattered)
            for slot, (factor, shift) in enumerate(zip(_FACTORS, _SHIFTS, strict=True)):
                np.multiply(scattered, factor, out=values)
                values += shift
                found[slot, full] = np.minimum.reduceat(values, edges[keep])[::2]
        return found.T


def bands(signatures: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Keys under which near copies meet, shape ``(SLOTS // BAND, N)`` (Leskovec, Rajaraman, Ullman 2014, chapter 3)."""
    slots = signatures.astype(np.uint64).reshape(len(signatures), SLOTS // BAND, BAND)
    total = np.zeros(slots.shape[:2], np.uint64)
    for place in range(BAND):
        total = mix(total * _MIX + slots[:, :, place])
    return np.ascontiguousarray((total >> np.uint64(32)).astype(np.uint32).T)
