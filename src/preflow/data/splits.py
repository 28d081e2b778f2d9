"""Which rows train and which are held out: by a hash of the normalised prompt, for all kinds of rows together.

The hash knows no seed and no row number, so adding rows moves none, and the same prompt falls on the same side as
demonstration and as pair.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.data.rows import Demonstration, Pair, first_user_turn
from preflow.data.text import normalise

_HASH_DIGITS = 13  # 52 bits: the most hexadecimal digits that a float holds exactly


def prompt_key(first_turn: str) -> str:
    """SHA-256 of the normalised first user turn, in hexadecimal."""
    return hashlib.sha256(normalise(first_turn).encode("utf-8")).hexdigest()


def is_held_out(key: str, share: float) -> bool:
    """Whether a prompt is held out when ``share`` (0 to 1) of all prompts are.

    A larger share holds out the same prompts and more.
    """
    return int(key[:_HASH_DIGITS], 16) < share * float(16**_HASH_DIGITS)


def row_key(row: Demonstration | Pair) -> str:
    """The prompt key of a row."""
    return prompt_key(first_user_turn(row.messages if isinstance(row, Demonstration) else row.prompt))


def split_key(first_turn: str) -> int:
    """The first 64 bits of the prompt key: what the split of many rows works on."""
    return int.from_bytes(hashlib.sha256(normalise(first_turn).encode("utf-8")).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Side:
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
        """Which rows evaluate, shape ``(N,)``."""
        if self.share is None:
            return self.named
        # The same 52 bits, and the same comparison, as ``is_held_out``.
        return (self.keys >> np.uint64(64 - 4 * _HASH_DIGITS)).astype(np.float64) < self.share * 16.0**_HASH_DIGITS


def split(sides: Sequence[Side]) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Part rows into training and evaluation so that no prompt is on both sides, whatever its kind.

    Returns:
        For each kind two masks, shape ``(N,)`` each: rows that evaluate, and rows that would train but leave because
        their prompt is held out, in any kind. All other rows train.
    """
    held = [side.held_out() for side in sides]
    keys = np.unique(np.concatenate([side.keys[mask] for side, mask in zip(sides, held, strict=True)]))
    return [(mask, np.isin(side.keys, keys) & ~mask) for side, mask in zip(sides, held, strict=True)]
