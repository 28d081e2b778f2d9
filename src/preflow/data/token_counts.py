"""How many tokens rows have under a tokenizer: many at a time, nearly at the tokenizer's own rate.

Contents are counted in batches; what the chat template adds per turn is learned from two renderings. Rows near or over
the limit are counted again exactly as training will, by rendering them.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preflow.data.columns import Columns
from preflow.data.rows import Demonstration, Message, Pair
from preflow.data.survey import FINE
from preflow.data.templates import Renderer
from preflow.data.tokens import tokenize_demonstrations, tokenize_pairs
from preflow.errors import ConfigError

_BATCH = 4096
#: Tokens by which a count from contents may miss: a template may merge a turn's edge with its marks.
_SLACK = 16


def count_tokens(columns: Columns, folder: str, limit: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens of each row, and how many tokens of a response would not fit.

    Args:
        columns: The rows.
        folder: A tokenizer's, with its chat template.
        limit: Most tokens of a row (``max_seq_length``).

    Returns:
        Tokens of prompt and longer answer together, and tokens of it beyond the limit; 0 for a row that was not
        converted. Shape ``(N,)`` each. Counts of rows well below the limit may miss by a few tokens.

    Raises:
        ConfigError: There is no tokenizer in the folder.
        TemplateError: The chat template cannot be used.
    """
    renderer = _renderer(folder)
    fine = np.flatnonzero(columns.get("problem") == FINE)
    tokens = np.zeros(columns.total, np.int32)
    overhead = _overhead(renderer)
    rows = iter(zip(fine.tolist(), columns.values(fine.tolist()), strict=True))
    while batch := list(islice(rows, _BATCH)):
        places = [place for place, _ in batch]
        tokens[places] = _estimates(renderer, [_row(values) for _, values in batch], overhead)
    near = np.flatnonzero(tokens > limit - _SLACK)
    for place, values in zip(near.tolist(), columns.values(near.tolist()), strict=True):
        tokens[place] = _exact(renderer, _row(values))
    return tokens, np.maximum(tokens - limit, 0)


def _renderer(folder: str) -> Renderer:
    from transformers import AutoTokenizer

    if not (Path(folder) / "tokenizer.json").is_file():
        raise ConfigError(
            f"--tokenizer {folder}: no tokenizer.json there; give the folder of a model or of its tokenizer"
        )
    return Renderer(AutoTokenizer.from_pretrained(folder), "chat")


def _row(values: dict[str, object]) -> Demonstration | Pair:
    return Demonstration.from_json(values) if "messages" in values else Pair.from_json(values)


def _overhead(renderer: Renderer) -> tuple[int, int]:
    """Tokens that the template adds to a prompt of one turn with its answer, and to each turn more."""
    short = (Message("user", "a"), Message("assistant", "a"))
    long = (*short, *short)
    lengths = [len(renderer.conversation(turns).input_ids) for turns in (short, long)]
    one = len(renderer.encode("a"))
    each = (lengths[1] - lengths[0] - 2 * one) // 2
    return lengths[0] - 2 * one, each


def _estimates(renderer: Renderer, rows: list[Demonstration | Pair], overhead: tuple[int, int]) -> NDArray[np.int32]:
    texts = [turn.content for row in rows for turn in _turns(row)]
    lengths = iter(_lengths(renderer, texts))
    found = np.zeros(len(rows), np.int32)
    for place, row in enumerate(rows):
        counts = list(islice(lengths, len(_turns(row))))
        turns = len(counts) - isinstance(row, Pair)
        body = sum(counts[:-2]) + max(counts[-2:]) if isinstance(row, Pair) else sum(counts)
        found[place] = body + overhead[0] + overhead[1] * (turns - 2)
    return found


def _turns(row: Demonstration | Pair) -> tuple[Message, ...]:
    return row.messages if isinstance(row, Demonstration) else (*row.prompt, *row.chosen, *row.rejected)


def _lengths(renderer: Renderer, texts: list[str]) -> Iterator[int]:
    backend = renderer.tokenizer.backend_tokenizer
    return map(len, backend.encode_batch_fast(texts, add_special_tokens=False))


def _exact(renderer: Renderer, row: Demonstration | Pair) -> int:
    """Tokens as training counts them, before any turn is removed."""
    if isinstance(row, Demonstration):
        (shown,), _ = tokenize_demonstrations([row], renderer, 2**31, "drop")
        return len(shown.input_ids)
    (pair,), _ = tokenize_pairs([row], renderer, 2**31, "drop")
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
