"""Every row measured, rows compared with each other, and frames that the suites check.

The frames hold no texts, so that validation results hold none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray

from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.chunks import Chunk, Part
from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import source_names
from preflow.data.joined_rows import joined_chunks
from preflow.data.quality.rows.ingest import FINE
from preflow.data.quality.rows.row_checks import ChunkMeasures, ChunkTask, measure_chunk
from preflow.data.quality.rows.word_hashes import combine
from preflow.data.quality.sets.column_store import Columns
from preflow.data.quality.sets.key_groups import first_occurrences
from preflow.data.quality.sets.near_duplicates import near_rows, near_rows_of_another_set
from preflow.data.quality.sets.similarity import prompts_alike, rows_alike
from preflow.data.quality.sets.verdicts import contradictions_and_cycles, win_counts
from preflow.data.validated import DataKind
from preflow.observer import Observer

Bools = NDArray[np.bool_]
#: Smaller files are read in this process: starting others costs about a second.
_WORTH_PROCESSES = 32 << 20
#: Share of equal slots of two signatures below which their texts are not compared.
_AGREE = 0.65
#: The same for prompts, which may be so short that one slip changes every fourth word.
_AGREE_PROMPTS = 0.4
#: Bytes per row of a frame while it is judged.
_FRAME_BYTES = 400


@dataclass(slots=True)
class RowFacts:
    """Measures of the rows of one kind.

    Attributes:
        columns: Measures of each row alone.
        settings: Thresholds.
        rows: Findings' names to what comparing rows found, shape ``(N,)`` each.
        partners: For each row the earlier row that it repeats, -1 where there is none.
        benchmark: For each row the row of a benchmark file with its prompt, -1 where there is none.
        lost_tokens: Tokens of each row beyond the limit; none where no tokenizer was given.
        token_limit: Most tokens of a row; none where no tokenizer was given.
    """

    columns: Columns
    settings: ValidationSettings
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    partners: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    benchmark: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    lost_tokens: NDArray[np.int32] | None = None
    token_limit: int | None = None

    def __len__(self) -> int:
        return self.columns.total

    @property
    def fine(self) -> Bools:
        """Rows that were converted, shape ``(N,)``."""
        return np.asarray(self.columns.get("problem") == FINE)

    def measured(self, rows: slice) -> dict[str, NDArray[Any]]:
        """Every column that a suite may ask for, for some rows that stand together, shape ``(M,)`` each."""

        def get(name: str, part: int = 0) -> NDArray[Any]:
            return self.columns.get(name, part, rows)

        parts = range(self.columns.parts("characters"))
        found: dict[str, NDArray[Any]] = {
            "problem": get("problem"),
            "control_characters": get("control"),
            "mojibake": get("mojibake"),
            "repeats_prompt": get("repeats"),
            "text_too_long": np.sum([get("characters", side).astype(np.int64) for side in parts], axis=0),
            **{name: values[rows] for name, values in self.rows.items()},
        }
        if self.columns.kind == "preferences":
            found |= {
                "identical_answers": get("same_answers"),
                "no_clear_winner": get("unclear"),
                "same_in_other_words": get("meaning"),
                "too_similar": get("alike"),
                "scores_tie": get("scores_tie"),
                "scores_inverted": get("scores_inverted"),
            }
        if self.settings.personal_data:
            found |= {name: get(name) for name in ("email_address", "phone_number", "secret")}
        return found

    def frames(self, extra: dict[str, NDArray[Any]] | None = None) -> Iterator[pd.DataFrame]:
        """Frames of one line per row, as many rows at a time as the recipe's memory allows.

        Args:
            extra: Columns to judge instead of what was measured, shape ``(N,)`` each.
        """
        block = max(10_000, self.settings.memory_mb * 2**20 // _FRAME_BYTES)
        for start in range(0, len(self), block):
            rows = slice(start, min(start + block, len(self)))
            found = self.measured(rows) if extra is None else {name: values[rows] for name, values in extra.items()}
            yield pd.DataFrame(found, index=pd.RangeIndex(rows.start, rows.stop))


def read_kind(
    kind: DataKind,
    sources: dict[Part, Sequence[DataSource]],
    folder: Path,
    settings: ValidationSettings,
    observer: Observer,
    reading: ReadingSettings | None = None,
) -> Columns:
    """Measure every row of one kind.

    Args:
        kind: What the files hold.
        sources: Files of the recipe's ``dataset`` (``train``) and of its ``eval_dataset`` (``eval``).
        folder: Where rows and columns go; made where it is missing.
        settings: Thresholds.
        observer: Receives progress.
        reading: How rows are read; as a recipe without a word about it where not given.

    Raises:
        DataFileError: A file cannot be read.
    """
    reading = reading or ReadingSettings()
    folder.mkdir(parents=True, exist_ok=True)
    every = [*sources["train"], *sources["eval"]]
    names = source_names(every)
    parts = ["train"] * len(sources["train"]) + ["eval"] * len(sources["eval"])
    columns = Columns(
        kind, folder, names=dict(zip(names, parts, strict=True)), origins=dict(zip(names, every, strict=True))
    )

    def orders() -> Iterator[ChunkTask]:
        number = 0
        for index, (source, name) in enumerate(zip(every, names, strict=True)):
            part: Part = "train" if index < len(sources["train"]) else "eval"
            for chunk in joined_chunks(kind, source, name, part, reading, settings.memory_mb << 20):
                yield ChunkTask(kind, chunk, number, columns.rows_file(number), settings, reading)
                number += 1

    size = sum(Path(source.path).stat().st_size for source in every if not is_hub(source.path))
    for file, found in _surveyed(orders(), settings.workers if size > _WORTH_PROCESSES else 1):
        columns.append(file, found)
        observer.progress(min(columns.size, size), max(size, 1), f"bytes of {kind} read")
    if not columns.files:  # no row at all: the columns are there and empty
        empty = ChunkTask(kind, Chunk("", "train"), 0, columns.rows_file(0), settings)
        columns.append("", measure_chunk(empty))
    columns.close()
    observer.progress(max(size, 1), max(size, 1), f"bytes of {kind} read")
    return columns


def _surveyed(orders: Iterator[ChunkTask], workers: int) -> Iterator[tuple[str, ChunkMeasures]]:
    if workers == 1:
        yield from map(_survey, orders)
        return
    # loky's processes do not import the main module again, and end with this one.
    pool = Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch=2 * workers, max_nbytes=None)
    yield from pool(delayed(_survey)(order) for order in orders)


def _survey(order: ChunkTask) -> tuple[str, ChunkMeasures]:
    return order.chunk.file, measure_chunk(order)


def compare_rows(columns: Columns, settings: ValidationSettings, benchmark: Columns | None) -> RowFacts:
    """Compare rows with each other: copies, verdicts at odds, one answer to many prompts, benchmark prompts."""
    memory = settings.memory_mb * 2**20
    facts = RowFacts(columns, settings)
    fine, named = facts.fine, columns.get("part").astype(bool)
    parts = [mask for mask in (fine & ~named, fine & named) if mask.any()]
    copies, facts.partners = _exact_copies(columns, parts, memory)
    facts.rows["duplicate_row"] = copies
    unique, least = fine & ~copies & ~named, min(settings.near_copy, settings.near_duplicate)
    partner, similarity = near_rows(columns, "row", unique, memory, _AGREE, rows_alike(columns, least), least)
    facts.partners = np.where(copies, facts.partners, partner)
    copied = similarity >= settings.near_copy
    facts.rows["near_copy"] = np.where(copied, similarity, np.nan).astype(np.float32)
    facts.rows["near_duplicate"] = np.where(copied, np.nan, similarity).astype(np.float32)
    prompts = columns.get("prompt")
    if columns.kind == "preferences":
        _compare_verdicts(facts, prompts, memory)
    else:
        facts.rows["conflicting_completions"] = _conflicts(prompts, columns.get("answers"), fine, memory)
    facts.rows["in_benchmark"] = _in_benchmark(facts, benchmark)
    return facts


def _exact_copies(columns: Columns, parts: list[Bools], memory: int) -> tuple[Bools, NDArray[np.int64]]:
    """Duplicates are sought within a part; a row in both is a leak, and leaves training."""
    keys = columns.get("key")
    partner = np.full(len(keys), -1, np.int64)
    for part in parts:
        first = first_occurrences(keys, part, memory)
        later = part & (first < np.arange(len(keys)))
        partner[later] = first[later]
    return partner >= 0, partner


def _compare_verdicts(facts: RowFacts, prompts: NDArray[np.uint64], memory: int) -> None:
    chosen, rejected = (facts.columns.get("answers", side) for side in (0, 1))
    answer_keys = (combine(prompts, chosen), combine(prompts, rejected))
    fine = facts.fine
    facts.rows["contradiction"], facts.rows["preference_cycle"] = contradictions_and_cycles(
        prompts, *answer_keys, fine, memory
    )
    count, share = win_counts(prompts, chosen, rejected, fine)
    facts.rows["wins_everywhere"] = np.where(share >= facts.settings.wins_everywhere_share, count, 0).astype(np.int32)


def _conflicts(prompts: NDArray[np.uint64], answers: NDArray[np.uint64], fine: Bools, memory: int) -> Bools:
    """Rows whose prompt has another completion elsewhere."""
    first = first_occurrences(prompts, fine, memory)
    differs = fine & (answers != answers[first])
    marked = np.zeros(len(prompts) + 1, bool)  # the last place takes the -1 of rows that do not count
    marked[first[differs]] = True
    return np.asarray(fine & marked[first])


def _in_benchmark(facts: RowFacts, benchmark: Columns | None) -> Bools:
    columns, count = facts.columns, len(facts)
    facts.benchmark = np.full(count, -1, np.int64)
    if benchmark is None or not benchmark.total:
        return np.zeros(count, bool)
    train = facts.fine & ~columns.get("part").astype(bool)
    facts.benchmark = near_rows_of_another_set(
        columns, train, benchmark, np.ones(benchmark.total, bool), _AGREE_PROMPTS, prompts_alike(columns, benchmark),
        facts.settings.near_prompt,
    )  # fmt: skip
    return facts.benchmark >= 0


def nearly_leaking(facts: RowFacts, train: Bools, others: Sequence[tuple[RowFacts, Bools]]) -> Bools:
    """Rows that would train though their prompt is nearly one that is held out, in any kind of row."""
    found = np.zeros(len(facts), bool)
    for other, held in others:
        compare = prompts_alike(facts.columns, other.columns)
        found |= near_rows_of_another_set(
            facts.columns, train & ~found, other.columns, held, _AGREE_PROMPTS, compare, facts.settings.near_prompt
        ) >= 0  # fmt: skip
    return found
