"""Prompts that a model may answer for training: those of the training pairs, or of files, never a held-out one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.validation import ReadingSettings
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.row_formats.demonstrations import asked, conversation_name, prompt_name
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.turns import messages, read_turns
from preflow.data.rows import Message, Source, first_user_turn
from preflow.data.splits import SplitRows, split_key
from preflow.data.text import is_blank
from preflow.data.validated import Split, has_rows, load_demonstrations, load_pairs


@dataclass(frozen=True, slots=True)
class TrainingPrompt:
    """A prompt that may be answered: an optional system turn, then user and assistant in turn, the user's last."""

    messages: tuple[Message, ...]
    source: Source


@dataclass(slots=True)
class FoundPrompts:
    """Prompts, and why others are none.

    Attributes:
        prompts: Distinct ones, in order.
        held_out: Rows that hold a held-out prompt, by name.
        unreadable: Rows that hold no prompt, by what is wrong.
        repeated: Rows whose prompt another row has.
    """

    prompts: list[TrainingPrompt] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    unreadable: dict[str, list[str]] = field(default_factory=dict)
    repeated: int = 0

    def to_json(self) -> dict[str, Any]:
        """What was left out, as a JSON object."""
        names = ("held_out", "unreadable", "repeated")
        return {"distinct": len(self.prompts), **{name: getattr(self, name) for name in names}}


def training_prompts(recipe: Recipe, data: Artifact, sources: Sequence[DataSource]) -> FoundPrompts:
    """The prompts that may be answered.

    Args:
        recipe: Says how rows are read, and which prompts are held out.
        data: The artifact of data validation.
        sources: Files with prompts; none for the prompts of the training pairs.
    """
    found, seen = FoundPrompts(), set[tuple[Message, ...]]()
    held_out = held_out_keys(data)
    for source, prompt in _from_files(recipe, sources, found) if sources else _of_pairs(data):
        key = split_key(first_user_turn(prompt))
        if key in held_out or (sources and _falls_to_held_out(recipe, key)):
            found.held_out.append(str(source))
        elif prompt in seen:
            found.repeated += 1
        else:
            seen.add(prompt)
            found.prompts.append(TrainingPrompt(prompt, source))
    return found


def held_out_keys(data: Artifact) -> set[int]:
    """``split_key`` of every prompt that is held out, for the test or for validation, as demonstration or as pair."""
    keys = set[int]()
    for split in get_args(Split):
        if split == "train":
            continue
        if has_rows(data, "preferences", split):
            keys |= {split_key(first_user_turn(pair.prompt)) for pair in load_pairs(data, split)}
        if has_rows(data, "demonstrations", split):
            keys |= {split_key(first_user_turn(row.messages)) for row in load_demonstrations(data, split)}
    return keys


def _falls_to_held_out(recipe: Recipe, key: int) -> bool:
    """Whether data validation would hold out a pair with this prompt."""
    dpo = recipe.dpo
    assert dpo is not None, "new pairs are for a DPO stage"
    rows = SplitRows(
        keys=np.array([key], dtype=np.uint64),
        named=np.zeros(1, dtype=np.bool_),
        share=None if dpo.eval_dataset else dpo.eval_split,
        validation=dpo.validation_split,
    )
    return bool(rows.held_out()[0] or rows.chosen_by()[0])


def _of_pairs(data: Artifact) -> Iterator[tuple[Source, tuple[Message, ...]]]:
    yield from ((pair.source, pair.prompt) for pair in load_pairs(data, "train"))


def _from_files(
    recipe: Recipe, sources: Sequence[DataSource], found: FoundPrompts
) -> Iterator[tuple[Source, tuple[Message, ...]]]:
    for source in sources:
        for raw in read_rows(source):
            where = Source(raw.file, raw.row)
            try:
                yield where, read_prompt_of(raw, recipe.reading)
            except RowProblem as problem:
                found.unreadable.setdefault(problem.finding, []).append(str(where))


def read_prompt_of(raw: RawRow, settings: ReadingSettings) -> tuple[Message, ...]:
    """The prompt of a row: a column of what is asked, or a conversation without the answers at its end.

    Raises:
        RowProblem: It has none.
    """
    if raw.malformed is not None:
        raise RowProblem("malformed_line", raw.malformed)
    row = Row.of(raw, settings)
    name = conversation_name(row)
    if name is not None and prompt_name(row) is None:
        turns = list(messages(read_turns(row.get(name), row.column(name), row.notes)))
        while turns and turns[-1].role != "user":
            turns.pop()
    else:
        turns = list(messages(asked(row)))
    body = turns[1:] if turns and turns[0].role == "system" else turns
    if len(body) % 2 == 0 or any(turn.role != ("user", "assistant")[n % 2] for n, turn in enumerate(body)):
        raise RowProblem("bad_order", "expected turns of user and assistant that end with the user's")
    if any(is_blank(turn.content) for turn in body):
        raise RowProblem("blank_text", "a turn of the prompt is blank")
    return tuple(turns)
