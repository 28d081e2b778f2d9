"""Which rows train and which are held out: by a hash of the normalised prompt, for all kinds of rows together.

The hash knows no seed and no row number, so adding rows moves none, and the same prompt falls on the same side as
demonstration and as pair.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from preflow.data.rows import Demonstration, Pair, first_user_turn

Row = TypeVar("Row", Demonstration, Pair)
_HASH_DIGITS = 13  # 52 bits: the most hexadecimal digits that a float holds exactly


def normalise(text: str) -> str:
    """Text up to Unicode form, case and white space: NFKC, case-folded, runs of white space as one blank."""
    # Case folding can leave NFKC, so the form is restored after it.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def is_blank(text: str) -> bool:
    """Whether no character can be seen: white space, control and zero-width characters alone, or nothing."""
    return not any(char.isprintable() and not char.isspace() for char in text)


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


@dataclass(frozen=True, slots=True)
class Split(Generic[Row]):
    """Rows of one kind, each in exactly one place.

    Attributes:
        train: Rows to train on.
        held_out: Rows to evaluate on.
        leaked: Rows left out of training because their prompt is held out, in either kind of row.
    """

    train: list[Row]
    held_out: list[Row]
    leaked: list[Row]


def split_rows(
    demonstrations: Sequence[Demonstration],
    pairs: Sequence[Pair],
    *,
    demonstrations_eval: Sequence[Demonstration] | None = None,
    pairs_eval: Sequence[Pair] | None = None,
    sft_share: float = 0.1,
    dpo_share: float = 0.1,
) -> tuple[Split[Demonstration], Split[Pair]]:
    """Part rows into training and evaluation so that no prompt is on both sides, whatever its kind.

    Args:
        demonstrations: Rows for training, and for evaluation where ``demonstrations_eval`` is none.
        pairs: Likewise.
        demonstrations_eval: Held-out demonstrations of the recipe's ``eval_dataset``.
        pairs_eval: Held-out pairs of the recipe's ``eval_dataset``.
        sft_share: Share of demonstrations' prompts held out, 0 to 1; not used with ``demonstrations_eval``.
        dpo_share: Share of pairs' prompts held out, 0 to 1; not used with ``pairs_eval``.
    """
    train_d, held_d = _by_hash(demonstrations, demonstrations_eval, sft_share)
    train_p, held_p = _by_hash(pairs, pairs_eval, dpo_share)
    held_keys = {row_key(row) for row in held_d} | {row_key(row) for row in held_p}
    return _without(train_d, held_d, held_keys), _without(train_p, held_p, held_keys)


def _by_hash(rows: Sequence[Row], held_out: Sequence[Row] | None, share: float) -> tuple[list[Row], list[Row]]:
    if held_out is not None:
        return list(rows), list(held_out)
    train: list[Row] = []
    held: list[Row] = []
    for row in rows:
        (held if is_held_out(row_key(row), share) else train).append(row)
    return train, held


def _without(train: list[Row], held_out: list[Row], keys: set[str]) -> Split[Row]:
    kept: list[Row] = []
    leaked: list[Row] = []
    for row in train:
        (leaked if row_key(row) in keys else kept).append(row)
    return Split(kept, held_out, leaked)
