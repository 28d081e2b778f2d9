"""The split's rule for one row, written down a second time: a prompt's hash as text, and its share as a number."""

import hashlib

from preflow.data.rows import Demonstration, Pair, first_user_turn
from preflow.data.text import normalise

#: Hexadecimal digits that a float holds exactly.
DIGITS = 13


def prompt_hash(first_turn: str) -> str:
    """SHA-256 of the normalised first user turn, in hexadecimal."""
    return hashlib.sha256(normalise(first_turn).encode("utf-8")).hexdigest()


def is_held_out(hashed: str, share: float) -> bool:
    """Whether a prompt is held out when ``share`` (0 to 1) of all prompts are."""
    return int(hashed[:DIGITS], 16) < share * float(16**DIGITS)


def row_hash(row: Demonstration | Pair) -> str:
    """The hash of a row's first user turn."""
    return prompt_hash(first_user_turn(row.messages if isinstance(row, Demonstration) else row.prompt))
