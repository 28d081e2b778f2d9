"""How many tokens rows have under a tokenizer: many at a time, nearly at the tokenizer's own rate.

Contents are counted in batches, while the next rows are read; what the chat template adds per turn is learned from two
renderings. Rows near or over the limit are counted again exactly as training will, by rendering them one by one.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from preflow.config.base import Rendering
from preflow.data.quality.sets.column_store import Columns
from preflow.data.rows import Demonstration, Message, Pair
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs
from preflow.errors import ConfigError

#: Rows counted in one call. Tokenizers are faster on batches whose results stay in the processor's cache.
BATCH = 512
#: Tokens by which a count from contents may miss: a template may merge a turn's edge with its marks.
_SLACK = 16
_ANY_LENGTH = 2**31


def load_renderer(folder: str, rendering: Rendering) -> Renderer:
    """The tokenizer in a folder, with its chat template or as the recipe says.

    Raises:
        ConfigError: There is no tokenizer in the folder.
        TemplateError: The chat template cannot be used.
    """
    from transformers import AutoTokenizer

    if not (Path(folder) / "tokenizer.json").is_file():
        raise ConfigError(
            f"--tokenizer {folder}: no tokenizer.json there; give the folder of a model or of its tokenizer"
        )
    return Renderer(AutoTokenizer.from_pretrained(folder), rendering)


def count_tokens(
    columns: Columns, renderer: Renderer, limit: int, among: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens of each row, and how many tokens of a response would not fit.

    Args:
        columns: The rows.
        renderer: A tokenizer with its chat template.
        limit: Most tokens of a row (``max_seq_length``).
        among: Rows to count, all of them converted, shape ``(N,)``. Quarantined rows cost nothing.

    Returns:
        Tokens of prompt and longer answer together, and tokens of an answer that training would lose: what does not
        fit when the oldest turns are gone, or all of it where the last user turn leaves no room. 0 for a row that
        does not count. Shape ``(N,)`` each. Counts of rows well below the limit may miss by a few tokens.

    Raises:
        TemplateError: The chat template refuses a row.
    """
    tokens = np.zeros(columns.total, np.int32)
    tokens[among] = _estimates(renderer, columns, among)
    lost = np.zeros(columns.total, np.int32)
    near = np.flatnonzero(among & (tokens > limit - _SLACK))
    for place, values in zip(near.tolist(), columns.values(near.tolist()), strict=True):
        exact = _exact_demonstration if columns.kind == "demonstrations" else _exact_pair
        tokens[place], lost[place] = exact(renderer, values, limit)
    return tokens, lost


def _estimates(renderer: Renderer, columns: Columns, among: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Tokens of the rows that count, from their contents, shape ``(among.sum(),)``."""
    overhead = _overhead(renderer)
    pairs = columns.kind == "preferences"
    rows = map(orjson.loads, compress(columns.lines(), among.tolist()))
    found = [np.zeros(0, np.int32)]
    # One batch is counted in a thread, outside the interpreter's lock, while the next is read here.
    with ThreadPoolExecutor(1) as counting:
        waiting = None
        while batch := [_contents(values) for values in islice(rows, BATCH)]:
            started = counting.submit(_batch, renderer, batch, overhead, pairs=pairs)
            if waiting is not None:
                found.append(waiting.result())
            waiting = started
        if waiting is not None:
            found.append(waiting.result())
    return np.concatenate(found)


def _contents(values: dict[str, Any]) -> list[str]:
    """What every turn of a row says; of a pair the last two are its answers."""
    if "messages" in values:
        return [turn["content"] for turn in values["messages"]]
    answers = ["\n".join(turn["content"] for turn in values[name]) for name in ("chosen", "rejected")]
    return [*(turn["content"] for turn in values["prompt"]), *answers]


def _batch(renderer: Renderer, rows: list[list[str]], overhead: tuple[int, int], *, pairs: bool) -> NDArray[np.int32]:
    turns = np.fromiter(map(len, rows), np.int32, len(rows))
    lengths = np.fromiter(_lengths(renderer, [text for row in rows for text in row]), np.int32, int(turns.sum()))
    ends = np.cumsum(turns)
    body = np.add.reduceat(lengths, ends - turns)
    if pairs:  # the longer answer counts
        body -= np.minimum(lengths[ends - 2], lengths[ends - 1])
        turns -= 1
    return np.asarray(body + overhead[0] + overhead[1] * (turns - 2), np.int32)


def _lengths(renderer: Renderer, texts: list[str]) -> Iterator[int]:
    backend = renderer.tokenizer.backend_tokenizer
    return map(len, backend.encode_batch_fast(texts, add_special_tokens=False))


def _overhead(renderer: Renderer) -> tuple[int, int]:
    """Tokens that the template adds to a prompt of one turn with its answer, and to each turn more."""
    short = (Message("user", "a"), Message("assistant", "a"))
    long = (*short, *short)
    one = len(renderer.encode("a"))
    if renderer.template == "none":  # one prompt and one answer, joined: another turn adds nothing of its own
        return _answered(renderer, short) - 2 * one, 0
    lengths = [_answered(renderer, turns) for turns in (short, long)]
    each = (lengths[1] - lengths[0] - 2 * one) // 2
    return lengths[0] - 2 * one, each


def _answered(renderer: Renderer, turns: Sequence[Message]) -> int:
    """Tokens of a prompt with its answer."""
    prompt = renderer.prompt_ids(turns[:-1])
    return len(prompt) + len(renderer.response_ids(turns[:-1], turns[-1:], prompt))


def _exact_pair(renderer: Renderer, values: dict[str, Any], limit: int) -> tuple[int, int]:
    """Tokens of a pair as training counts them before any turn is removed, and what an answer would lose."""
    row = Pair.from_json(values)
    (whole,), _ = tokenize_pairs([row], renderer, _ANY_LENGTH, "drop")
    answers = [len(whole.chosen_ids), len(whole.rejected_ids)]
    total = len(whole.prompt_ids) + max(answers)
    if total <= limit:
        return total, 0
    kept, _ = tokenize_pairs([row], renderer, limit, "cut")
    left = [len(kept[0].chosen_ids), len(kept[0].rejected_ids)] if kept else [0, 0]
    return total, max(before - after for before, after in zip(answers, left, strict=True))


def _exact_demonstration(renderer: Renderer, values: dict[str, Any], limit: int) -> tuple[int, int]:
    """The same for the last answer of a demonstration."""
    row = Demonstration.from_json(values)
    (whole,), _ = tokenize_demonstrations([row], renderer, _ANY_LENGTH, "drop", train_on="last")
    total = len(whole.input_ids)
    if total <= limit:
        return total, 0
    kept, _ = tokenize_demonstrations([row], renderer, limit, "cut", train_on="last")
    return total, _last_answer(whole.response_mask) - (_last_answer(kept[0].response_mask) if kept else 0)


def _last_answer(mask: list[bool]) -> int:
    """Tokens of the answer at the end of a row."""
    return next((length for length, inside in enumerate(reversed(mask)) if not inside), len(mask))
