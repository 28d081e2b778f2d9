"""One chunk of rows looked at once: each row in the internal form on disk, and what can be measured of it as columns.

This runs in several processes, so it gets and gives small values: the texts go to a file.
"""

from collections import Counter
from dataclasses import dataclass, field
from operator import is_not
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.process import cpdist
from xxhash import xxh3_64_intdigest

from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.chunks import Chunk
from preflow.data.quality.rows.encoding import has_control, has_mojibake
from preflow.data.quality.rows.form_marks import mark_bits
from preflow.data.quality.rows.ingest import (
    FINE,
    SCORES,
    TEXTS_PER_ROW,
    TOO_LONG,
    ChunkTexts,
    ReadingCounts,
    ingest,
)
from preflow.data.quality.rows.prompt_echo import beginnings, repeats, whole_similarity
from preflow.data.quality.rows.word_hashes import Words, bands, combine
from preflow.data.quality.wording.equivalence import may_be_alike, no_clear_winner
from preflow.data.quality.wording.paraphrase import LEAST_LETTERS, shared_meaning
from preflow.data.quality.wording.typos import unwrap
from preflow.data.splits import split_key
from preflow.data.text import folded_words, normalise, visible
from preflow.data.validated import DataKind

#: Words of an opening phrase: ``Sure``, ``I apologize``, ``As an AI``.
OPENINGS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """What to look at.

    Attributes:
        kind: What the rows are read as.
        chunk: The rows.
        number: Of the chunk, from 0.
        file: Where the rows go, in the internal form.
        settings: Thresholds.
        reading: How rows are read.
    """

    kind: DataKind
    chunk: Chunk
    number: int
    file: Path
    settings: ValidationSettings
    reading: ReadingSettings = field(default_factory=ReadingSettings)


@dataclass(slots=True)
class ChunkMeasures:
    """What was found in a chunk.

    Attributes:
        columns: Name to one value per row, shape ``(N,)`` or ``(K, N)``.
        sources: Rows by the value of their column ``source``.
        size: Bytes written.
        reading: How the rows were read.
    """

    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    size: int = 0
    reading: ReadingCounts = field(default_factory=ReadingCounts)


def measure_chunk(order: ChunkTask) -> ChunkMeasures:
    """Look at one chunk and write its rows.

    Raises:
        DataFileError: The file has changed since it was cut into chunks.
    """
    removed = order.settings.severity_of(TOO_LONG) in {"set_aside", "stop"}
    most = order.settings.maximum_characters if removed else None
    texts = ingest(order.kind, order.chunk.file, order.chunk.read(), order.reading, most)
    with order.file.open("wb") as written:
        written.writelines(texts.lines)
    sizes = np.fromiter(map(len, texts.lines), np.int64)
    columns: dict[str, NDArray[Any]] = {
        "row": np.array(texts.numbers, np.uint32),
        "problem": np.array(texts.problems, np.uint8),
        "offset": np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes,
        "chunk": np.full(len(sizes), order.number, np.uint32),
        "part": np.full(len(sizes), order.chunk.part == "eval", bool),
        "made": np.array(texts.made, bool),
    }
    columns |= _measure(order, texts)
    return ChunkMeasures(columns, texts.sources, int(sizes.sum()), texts.reading)


def _measure(order: ChunkTask, texts: ChunkTexts) -> dict[str, NDArray[Any]]:
    """Everything that is measured of the rows of a chunk."""
    step = TEXTS_PER_ROW[order.kind]
    words = Words.of(texts.parts)
    bags, exact, numbers = words.bags(), words.sequences(), words.numbers()
    for place in np.flatnonzero(words.counts == 0):  # marks or pictures alone: the text itself
        if texts.parts[place]:
            bags[place] = exact[place] = xxh3_64_intdigest(normalise(texts.parts[place]).encode())
    fine = np.array(texts.problems, np.uint8) == FINE
    edges = words.offsets[::step]
    rows = words.signatures(edges[:-1], edges[1:])
    prompt_bags, answers = bags[0::step], [bags[side::step] for side in range(1, step)]
    firsts = [texts.firsts.get(place, prompt) for place, prompt in enumerate(texts.parts[0::step])]
    bare = list(map(unwrap, firsts))
    if texts.firsts or any(map(is_not, bare, firsts)):
        asked = Words.of(bare)
        first_bags = np.where(asked.counts > 0, asked.bags(), prompt_bags)
        first_numbers, signatures = asked.numbers(), asked.signatures(asked.offsets[:-1], asked.offsets[1:])
    else:
        asked, first_bags, first_numbers = words.every(0, step), prompt_bags, numbers[0::step]
        signatures = words.signatures(words.offsets[:-1:step], words.offsets[1::step])
    columns: dict[str, NDArray[Any]] = {
        "split": np.fromiter(map(split_key, firsts), np.uint64, len(firsts)),
        "key": _exact_keys(texts),
        "copy": combine(*(exact[side::step] for side in range(step))),
        "bag": combine(prompt_bags, *answers),
        "row_numbers": combine(*(numbers[side::step] for side in range(step))),
        "prompt_numbers": first_numbers,
        "prompt": prompt_bags,
        "first": first_bags,
        "words": words.counts.reshape(-1, step).T.astype(np.uint32),
        **{f"opening_{n}": words.openings(n).reshape(-1, step).T[1:] for n in OPENINGS},
        "cues": _cues(texts.parts, words, step),
        "characters": _characters(texts, step),
        "row_bands": bands(rows),
        "row_slots": (rows & 0xFF).astype(np.uint8).T,
        "prompt_halves": asked.halves(),
        "prompt_bands": bands(signatures),
        "prompt_slots": (signatures & 0xFF).astype(np.uint8).T,
        "answers": np.stack(answers),
    }
    columns |= _text_checks(texts, step, fine)
    if order.settings.personal_data:
        columns |= _personal(order.settings, texts, step)
    if step == 3:
        columns |= _compare(order.settings, texts, columns, fine)
        scores = np.array(texts.scores, np.uint8)
        columns |= {f"scores_{name}": scores == SCORES.index(name) for name in ("agree", "tie", "inverted")}
    columns["repeats"] = _repeats(texts, words, step, order.settings.repeats_prompt)
    return columns


def _characters(texts: ChunkTexts, step: int) -> NDArray[np.uint32]:
    """Characters of the parts of each row, also of one that is not measured, shape ``(step, N)``."""
    found = np.fromiter(map(len, texts.parts), np.uint32, len(texts.parts)).reshape(-1, step)
    for place, sizes in texts.too_long.items():
        found[place] = sizes
    return found.T


def _exact_keys(texts: ChunkTexts) -> NDArray[np.uint64]:
    """A hash of what a row says, to the letter, whatever columns it was written in."""
    said = (xxh3_64_intdigest(line[: line.rfind(b', "file": ')]) for line in texts.lines)
    return np.fromiter(said, np.uint64, len(texts.lines))


def _cues(parts: list[str], words: Words, step: int) -> NDArray[np.uint16]:
    """The marks of form of each answer as bits in the order of ``CUES``, shape ``(step - 1, N)``."""
    before = np.concatenate([[0], np.cumsum(words.digits)])
    digits = (before[words.offsets[1:]] > before[words.offsets[:-1]]).reshape(-1, step).T
    found = [mark_bits(parts[side::step], digits[side]) for side in range(1, step)]
    return np.stack(found)


def _text_checks(texts: ChunkTexts, step: int, fine: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Control characters and mojibake, row by row."""
    count = len(texts.lines)
    control, mojibake = np.zeros(count, bool), np.zeros(count, bool)
    for place in range(count):
        if fine[place]:
            parts = texts.parts[place * step : place * step + step]
            if not all(text.isascii() and text.isprintable() for text in parts):
                control[place] = any(map(has_control, parts))
                mojibake[place] = any(map(has_mojibake, parts))
    return {"control": control, "mojibake": mojibake}


def _personal(settings: ValidationSettings, texts: ChunkTexts, step: int) -> dict[str, NDArray[Any]]:
    """E-mail addresses, phone numbers and secrets, row by row."""
    from preflow.data.quality.rows.personal_data import has_email, has_phone, has_secret

    rows = ["\n".join(texts.parts[place : place + step]) for place in range(0, len(texts.parts), step)]
    return {
        "email_address": np.array([has_email(row) for row in rows], bool),
        "phone_number": np.array([has_phone(row, settings.phone_region) for row in rows], bool),
        "secret": np.array([has_secret(row) for row in rows], bool),
    }


def _compare(
    settings: ValidationSettings, texts: ChunkTexts, columns: dict[str, NDArray[Any]], fine: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """How alike chosen and rejected are."""
    chosen, rejected = texts.parts[1::3], texts.parts[2::3]
    similarity = cpdist(beginnings(chosen), beginnings(rejected), scorer=fuzz.ratio, dtype=np.float32) / np.float32(100)
    same = np.zeros(len(chosen), bool)
    alike, meaning = np.full((2, len(chosen)), np.nan, np.float32)
    unclear = np.zeros(len(chosen), bool)
    bags = columns["answers"]
    close = (similarity >= settings.too_similar) | (bags[0] == bags[1])
    most = columns["words"][1:].max(axis=0)
    short = most <= settings.no_clear_winner_words
    alike_in_letters = (similarity >= LEAST_LETTERS) & (most <= settings.same_in_other_words_up_to)
    for place in np.flatnonzero(fine & (close | short | alike_in_letters)):
        pair = chosen[place], rejected[place]
        if normalise(visible(pair[0])) == normalise(visible(pair[1])):
            same[place] = True
            continue
        if close[place]:
            similarity[place] = whole = whole_similarity(*pair, float(similarity[place]))
            close[place] = whole >= settings.too_similar or bags[0, place] == bags[1, place]
        if close[place] and may_be_alike(*map(folded_words, pair)):
            alike[place] = 1.0 if bags[0, place] == bags[1, place] else similarity[place]
        unclear[place] = bool(short[place]) and no_clear_winner(*pair)
        if alike_in_letters[place] and not unclear[place] and np.isnan(alike[place]):
            meaning[place] = shared_meaning(*pair)
    return {"similarity": similarity, "same_answers": same, "alike": alike, "unclear": unclear, "meaning": meaning}


def _repeats(texts: ChunkTexts, words: Words, step: int, least: float) -> NDArray[np.bool_]:
    """Whether an answer repeats the prompt, or the user's last turn where the prompt has others before it."""
    found = np.zeros(len(texts.lines), bool)
    prompts, *answers = [(texts.parts[side::step], words.every(side, step)) for side in range(step)]
    for given, said in answers:
        found |= repeats(*prompts, given, said, least)
    if texts.lasts:
        places = list(texts.lasts)
        asked = list(texts.lasts.values())
        for given, _ in answers:
            some = [given[place] for place in places]
            found[places] |= repeats(asked, Words.of(asked), some, Words.of(some), least)
    return found
