"""What a plan reads before any weight is loaded: the model's small files, and the lengths of the rows."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flows.running.preparation import PreparedRun
from preflow.config import Recipe
from preflow.config.training import SftSettings, TrainingSettings
from preflow.config.validation import path_of
from preflow.errors import DataUnfitError

if TYPE_CHECKING:
    from preflow.data.rows import Demonstration, Pair
    from preflow.data.tokens.row_counts import RowCounts
    from preflow.data.validated import DataKind
    from preflow.models.resolve import ModelRef


class Rows(NamedTuple):
    """Tokens of a stage's usable rows: pairs as (prompt, chosen, rejected), SFT examples as (all, response)."""

    train: list[tuple[int, ...]]
    held_out: list[tuple[int, ...]]
    common: int
    """Length of the prefix that the prompts of all training rows share, as a system message."""
    notes: tuple[str, ...] = ()
    """What the chat template did to rows, as the run says it."""


def read_model(recipe: Recipe) -> "ModelRef":
    """The base model, and the adapter that a recipe may start from; of hub models only the small files.

    Raises:
        ModelError: It cannot be found; a run could not find it either.
    """
    from preflow.models.resolve import find_model
    from preflow.observer import Silent

    return find_model(recipe, Silent(), weights=False)


def read_lengths(prepared: PreparedRun, base: "ModelRef") -> dict[str, Rows]:
    """Tokens of every usable row of each training stage, split into training and held-out rows as ``validate`` does.

    Rows that validation quarantines for other reasons (copies, near copies of held-out prompts, ...) are counted.

    Raises:
        DataUnfitError: A stage has no row to train on.
    """
    from preflow.data.splits import SplitRows, assign_splits, split_key
    from preflow.data.tokens.chat_template import Renderer
    from preflow.data.tokens.row_counts import RowCounts, template_notes
    from preflow.estimates.workload import common_prefix_length
    from preflow.models.loading import load_tokenizer

    renderer = Renderer(load_tokenizer(base, prepared.recipe), prepared.recipe.rendering)
    found, splits = {}, []
    for stage, settings in prepared.recipe.training_sections:
        rows = _named(prepared, stage)
        named = np.array([of_eval for _, of_eval in rows], bool)
        keys = np.array([split_key(user_turn_to_split_by(row)) for row, _ in rows], np.uint64)
        share = None if settings.eval_dataset else settings.eval_split
        splits.append(SplitRows(keys, named, share, settings.validation_split))
        found[stage] = [row for row, _ in rows]
    lengths_of: dict[str, Rows] = {}
    for (stage, settings), (held, leaking) in zip(
        prepared.recipe.training_sections, assign_splits(splits), strict=True
    ):
        counts = RowCounts()
        parts = [
            _tokens([found[stage][place] for place in np.flatnonzero(mask)], settings, renderer, counts)
            for mask in (~held & ~leaking, held)
        ]
        if not parts[0]:
            files = ", ".join(map(path_of, settings.dataset or ()))
            raise DataUnfitError(
                f"{stage}: no row of {files} is left to train on within {settings.max_seq_length} tokens "
                f"({len(held)} were read, {int(held.sum())} of them are held out)"
            )
        prompts, train = zip(*parts[0], strict=True)
        common = common_prefix_length(prompts, train, settings.max_seq_length)
        notes = tuple(text for _, text in template_notes(counts))
        lengths_of[stage] = Rows(list(train), [tokens for _, tokens in parts[1]], common, notes)
    return lengths_of


def position_warnings(recipe: Recipe, base: "ModelRef", rows: dict[str, Rows]) -> list[str]:
    """Warnings of rows that are longer than any that the model was trained on."""
    from preflow.models.loading import beyond_positions, rotary_limit

    limit = rotary_limit(base, recipe)
    found = []
    for stage, held in rows.items():
        # a demonstration is (all, response), a pair (prompt, chosen, rejected)
        tokens = [row[0] if stage == "sft" else row[0] + max(row[1:]) for row in (*held.train, *held.held_out)]
        found.append(beyond_positions(tokens, limit, "demonstrations" if stage == "sft" else "pairs", base.name))
    return [text for text in found if text is not None]


def user_turn_to_split_by(row: "Demonstration | Pair") -> str:
    """The first user turn, whose hash splits the rows."""
    from preflow.data.rows import Demonstration, first_user_turn

    return first_user_turn(row.messages if isinstance(row, Demonstration) else row.prompt)


def _named(prepared: PreparedRun, stage: str) -> "list[tuple[Demonstration | Pair, bool]]":
    """A stage's rows that can be converted, and whether the recipe names them as held-out data."""
    from contextlib import suppress

    from preflow.data.conversion import RowProblem, read_pairs, to_demonstration
    from preflow.data.joined_rows import joined_rows

    reading = prepared.recipe.reading
    kind: DataKind = "demonstrations" if stage == "sft" else "preferences"
    rows: list[tuple[Demonstration | Pair, bool]] = []
    for name, of_eval in ((kind, False), (f"{kind}_eval", True)):
        for source in getattr(prepared.sources, name):
            for row in joined_rows(kind, source, reading):
                with suppress(RowProblem):  # validation quarantines such rows
                    found = [to_demonstration(row, reading)] if stage == "sft" else read_pairs(row, reading)[0]
                    rows += [(one, of_eval) for one in found]
    return rows


def _tokens(
    rows: Any, settings: TrainingSettings, renderer: Any, counts: "RowCounts"
) -> list[tuple[list[int], tuple[int, ...]]]:
    """Of the rows that fit: the prompt's token ids, and how many tokens each part has; what happened is counted."""
    from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs

    limit = settings.max_seq_length, settings.overlong_response
    if isinstance(settings, SftSettings):
        tokens, seen = tokenize_demonstrations(rows, renderer, *limit, train_on=settings.train_on)
        counts.add(seen)
        masks = [row.response_mask for row in tokens]
        return [
            (row.input_ids[: mask.index(True)], (len(mask), sum(mask))) for row, mask in zip(tokens, masks, strict=True)
        ]
    scored, seen = tokenize_pairs(rows, renderer, *limit)
    counts.add(seen)
    return [(row.prompt_ids, (len(row.prompt_ids), len(row.chosen_ids), len(row.rejected_ids))) for row in scored]
