"""Rows on which log-probs are compared: of files, and of other shapes from the same tokens."""

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from preflow.config import Recipe
from preflow.data.conversion import RowProblem, to_demonstration, to_pair
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Demonstration, Pair
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import TokenizedDemonstration, tokenize_demonstrations, tokenize_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.resolve import ModelRef

T = TypeVar("T")
#: Tokens of a short answer at most.
SHORT = 3


class Tokens(NamedTuple):
    """Token ids of a pair."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def draw(
    recipe: Recipe, base: ModelRef, files: Sequence[Path], count: int, tokens: int, long: int
) -> dict[str, list[Tokens]]:
    """So many pairs of each file, spread evenly, and of each kind that is made of them.

    Args:
        recipe: How rows are rendered.
        base: Whose tokenizer is used.
        files: Of pairs or demonstrations.
        count: Pairs of each kind.
        tokens: Most tokens of a row of a file.
        long: Tokens of a long prompt, at least.
    """
    renderer = Renderer(load_tokenizer(base, recipe), recipe.rendering)
    kinds = {file.name.split(".")[0]: rows_of(file, renderer, count, tokens) for file in files}
    return kinds | made([row for rows in kinds.values() for row in rows], count, long)


def rows_of(file: Path, renderer: Renderer, count: int, tokens: int = 512) -> list[Tokens]:
    """Pairs of a file; of demonstrations each with the answer to another one as its rejected response."""
    pairs, shown = list[Pair](), list[Demonstration]()
    (source,) = resolve_sources([str(file)])
    for row in read_rows(source):
        with suppress(RowProblem):  # rows that the validate stage would quarantine
            pairs.append(to_pair(row))
            continue
        with suppress(RowProblem):
            shown.append(to_demonstration(row))
    if pairs:
        found, _ = tokenize_pairs(spread(pairs, 2 * count), renderer, tokens, "drop")
        return [Tokens(row.prompt_ids, row.chosen_ids, row.rejected_ids) for row in found[:count]]
    some, _ = tokenize_demonstrations(spread(shown, 2 * count), renderer, tokens, "drop")
    parts = [split(row) for row in some[:count]]
    others = [answer for _, answer in parts[1:] + parts[:1]]
    return [Tokens(prompt, answer, other) for (prompt, answer), other in zip(parts, others, strict=True)]


def spread(rows: Sequence[T], count: int) -> list[T]:
    """So many rows, or a few more, from the whole file."""
    return list(rows[:: max(1, len(rows) // count)])


def split(row: TokenizedDemonstration) -> tuple[list[int], list[int]]:
    """What stands before the last response of a demonstration, and that response."""
    backwards = row.response_mask[::-1]
    end = len(backwards) - backwards.index(True)
    start = end - backwards[len(backwards) - end :].index(False)
    return row.input_ids[:start], row.input_ids[start:end]


def made(rows: Sequence[Tokens], count: int, least: int) -> dict[str, list[Tokens]]:
    """Pairs of other shapes from the same tokens."""
    rng = random.Random(0)
    some = [rng.choice(rows) for _ in range(count)]
    long = []
    for row in some[: max(1, count // 4)]:  # attention over such prompts takes long
        before: list[int] = []
        while len(before) + len(row.prompt) < least:
            before += [token for part in rng.choice(rows) for token in part]
        long.append(row._replace(prompt=before + row.prompt))
    cut = [rng.randint(1, SHORT) for _ in some]
    return {
        "long prompts": long,
        "short answers": [
            row._replace(chosen=row.chosen[:n], rejected=row.rejected[-n:]) for row, n in zip(some, cut, strict=True)
        ],
        "sure answers": [row._replace(prompt=row.prompt + 2 * row.chosen) for row in some],
    }
