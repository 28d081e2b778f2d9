"""Which rows train and which are held out: by a hash of the normalised prompt, for demonstrations and pairs together.

The hash depends on no seed and no row number, so adding rows moves none, and a prompt falls into the same split as
demonstration and as pair.
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
        share: Share of prompts to hold out, 0 to 1; none where the recipe names held-out data.
    """

    keys: NDArray[np.uint64]
    named: NDArray[np.bool_]
    share: float | None

    def held_out(self) -> NDArray[np.bool_]:
        """Which rows are held out, shape ``(N,)``; a larger share holds out the same prompts and more."""
        if self.share is None:
            return self.named
        return (self.keys >> np.uint64(64 - _BITS)).astype(np.float64) < self.share * 2.0**_BITS


def assign_splits(kinds: Sequence[SplitRows]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Part rows into training and evaluation so that no prompt is in both splits, whatever the kind of its rows.

    Args:
        kinds: The usable rows of each kind.

    Returns:
        For each kind two masks, shape ``(N,)`` each: rows that evaluate, and rows that would train but leave because
        their prompt is held out, in any kind. All other rows train.
    """
    held = [rows.held_out() for rows in kinds]
    keys = np.unique(np.concatenate([rows.keys[mask] for rows, mask in zip(kinds, held, strict=True)]))
    return [(mask, np.isin(rows.keys, keys) & ~mask) for rows, mask in zip(kinds, held, strict=True)]
