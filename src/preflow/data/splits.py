"""Which rows train and which are held out: by a hash of the normalised prompt, for demonstrations and pairs together.

Held-out rows are of two splits: the test rows, on which models are reported and decided on, have the lowest hashes (or
are named by the recipe); the validation rows, by which a rate or a checkpoint may be chosen, have the highest, so that
neither share moves the other's rows. The hash depends on no seed and no row number, so adding rows moves none, and a
prompt falls into the same split as demonstration and as pair.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.data.text import normalise

#: Leading bits of a key that are compared with the share: a multiple of four that a float holds exactly.
_BITS = 52


def split_key(first_turn: str) -> int:
    """The first 64 bits of the SHA-256 of a row's normalised first user turn."""
    return int.from_bytes(hashlib.sha256(normalise(first_turn).encode("utf-8")).digest()[:8], "big")


def cluster_key(first_turn: str) -> str:
    """What rows of one prompt have in common, as text: their ``split_key`` in 16 hexadecimal digits.

    Rows with the same first user turn are split together, however their conversations go on, so first turns are what
    was drawn: conversations that share one are no independent observations.
    """
    return f"{split_key(first_turn):016x}"


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The usable rows of one kind, before they are split.

    Attributes:
        keys: ``split_key`` of each row's first user turn, shape ``(N,)``.
        named: Whether the recipe names the row as held-out data, shape ``(N,)``.
        share: Share of prompts to hold out for the test, 0 to 1; none where the recipe names held-out data.
        validation: Share of prompts to hold out for validation, 0 to 1.
    """

    keys: NDArray[np.uint64]
    named: NDArray[np.bool_]
    share: float | None
    validation: float = 0.0

    def held_out(self) -> NDArray[np.bool_]:
        """Which rows are test rows, shape ``(N,)``; a larger share holds out the same prompts and more."""
        return self.named if self.share is None else self._leading() < self.share * 2.0**_BITS

    def chosen_by(self) -> NDArray[np.bool_]:
        """Which rows have a hash of the validation split, shape ``(N,)``, whether they are test rows or not."""
        return self._leading() >= (1.0 - self.validation) * 2.0**_BITS

    def _leading(self) -> NDArray[np.float64]:
        return (self.keys >> np.uint64(64 - _BITS)).astype(np.float64)


def assign_splits(kinds: Sequence[SplitRows]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Part rows into training and evaluation so that no prompt is in both splits, whatever the kind of its rows.

    Args:
        kinds: The usable rows of each kind.

    Returns:
        For each kind two masks, shape ``(N,)`` each: rows that are held out (test and validation rows), and rows that
        would be used but leave because their prompt is held out elsewhere, in any kind. All other rows train.
    """
    validation = validation_rows(kinds)
    held = [rows.held_out() | mask for rows, mask in zip(kinds, validation, strict=True)]
    keys = _keys(kinds, held)
    return [(mask, np.isin(rows.keys, keys) & ~mask) for rows, mask in zip(kinds, held, strict=True)]


def validation_rows(kinds: Sequence[SplitRows]) -> list[NDArray[np.bool_]]:
    """Which held-out rows are for validation, shape ``(N,)`` for each kind; no prompt of a test row is among them."""
    test = _keys(kinds, [rows.held_out() for rows in kinds])
    return [rows.chosen_by() & ~np.isin(rows.keys, test) for rows in kinds]


def _keys(kinds: Sequence[SplitRows], masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint64]:
    return np.unique(np.concatenate([rows.keys[mask] for rows, mask in zip(kinds, masks, strict=True)]))
