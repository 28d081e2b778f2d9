"""Raw rows to lines in the internal form, or to a named problem, and their texts for measuring.

Rows of plain text, nearly all of most files, are written without being converted; the others are converted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import TypeVar

from preflow.data.conversion import RowProblem, is_conditioned, to_demonstration, to_pair
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import RawRow
from preflow.data.rows import Demonstration, Message, Pair, Source, first_user_turn
from preflow.data.text import is_blank, row_json
from preflow.data.validated import DataKind, QuarantinedRow
from preflow.findings import FORM

#: ``problem`` of a row that was converted; the others are places in ``FORM``, from 1.
FINE = 0
PROBLEMS = ("fine", *FORM)
#: Texts of a row: its prompt and its answers.
TEXTS_PER_ROW: dict[DataKind, int] = {"demonstrations": 2, "preferences": 3}
#: Distinct values of the column ``source`` that are counted in a chunk.
_SOURCES = 2000
Row = TypeVar("Row", Demonstration, Pair)


@dataclass(slots=True)
class ChunkTexts:
    """The rows of a chunk in parts; a row with a problem has empty texts.

    Attributes:
        kind: What the rows are read as.
        lines: Each row in the internal form, or as the quarantine holds it.
        numbers: Of each row in its file.
        problems: What is wrong with each row, a place in ``PROBLEMS``.
        parts: Prompt and answers of each row, one after the other.
        firsts: Place of a row to its first user turn, where that is not its whole prompt.
        lasts: Place of a row to its last user turn, where that is not its whole prompt.
        sources: Rows by the value of their column ``source``.
    """

    kind: DataKind
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    problems: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    firsts: dict[int, str] = field(default_factory=dict)
    lasts: dict[int, str] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)


def ingest(kind: DataKind, file: str, rows: Iterable[RawRow]) -> ChunkTexts:
    """Convert the rows of one file.

    Args:
        kind: What they are read as.
        file: Name of the file, as findings give it.
        rows: As the file holds them.
    """
    texts = ChunkTexts(kind)
    quick, careful = (_quick_pair, _pair) if kind == "preferences" else (_quick_demonstration, _demonstration)
    quoted = encode_basestring(file)
    for raw in rows:
        if not quick(texts, raw, quoted):
            held = from_quarantine(raw)
            if held is raw or not quick(texts, held, quoted):
                careful(texts, held)
            raw = held  # noqa: PLW2901 - a row of a quarantine is what it holds
        source = raw.values.get("source")
        if type(source) is str and (source in texts.sources or len(texts.sources) < _SOURCES):
            texts.sources[source] += 1
    return texts


def _quick_pair(texts: ChunkTexts, raw: RawRow, file: str) -> bool:
    """Add a row of plain texts; false, and nothing is added, for any other."""
    values = raw.values
    prompt, chosen, rejected = values.get("prompt"), values.get("chosen"), values.get("rejected")
    if not (type(prompt) is type(chosen) is type(rejected) is str) or raw.malformed is not None or is_conditioned(raw):
        return False
    if is_blank(prompt) or is_blank(chosen) or is_blank(rejected):
        return False
    # The bytes of json.dumps(Pair.to_json()) at 1.5 to 2.6 times its rate. orjson would be far faster still, but writes
    # no space after a comma or colon: every validated file, and the digests that later stages know it by, would change.
    line = (
        f'{{"prompt": [{{"role": "user", "content": {encode_basestring(prompt)}}}], '
        f'"chosen": [{{"role": "assistant", "content": {encode_basestring(chosen)}}}], '
        f'"rejected": [{{"role": "assistant", "content": {encode_basestring(rejected)}}}], '
        f'"file": {file}, "row": {raw.row}}}\n'
    )
    return _keep(texts, raw, line, (prompt, chosen, rejected))


def _quick_demonstration(texts: ChunkTexts, raw: RawRow, file: str) -> bool:
    values = raw.values
    prompt, answer = values.get("prompt"), values.get("completion")
    if not (type(prompt) is type(answer) is str) or raw.malformed is not None or is_conditioned(raw):
        return False
    if values.get("messages") is not None or values.get("conversations") is not None:
        return False
    if is_blank(prompt) or is_blank(answer):
        return False
    line = (
        f'{{"messages": [{{"role": "user", "content": {encode_basestring(prompt)}}}, '
        f'{{"role": "assistant", "content": {encode_basestring(answer)}}}], '
        f'"context": 1, "file": {file}, "row": {raw.row}}}\n'
    )
    return _keep(texts, raw, line, (prompt, answer))


def _pair(texts: ChunkTexts, raw: RawRow) -> None:
    pair = _converted(texts, raw, to_pair)
    if pair is not None:
        _keep_converted(texts, raw, pair, pair.prompt, (pair.chosen[0].content, pair.rejected[0].content))


def _demonstration(texts: ChunkTexts, raw: RawRow) -> None:
    shown = _converted(texts, raw, to_demonstration)
    if shown is not None:
        _keep_converted(texts, raw, shown, shown.messages[:-1], (shown.messages[-1].content,))


def _converted(texts: ChunkTexts, raw: RawRow, convert: Callable[[RawRow], Row]) -> Row | None:
    """The row in the internal form; none where it cannot be used, which is then noted."""
    try:
        return convert(raw)
    except RowProblem as problem:
        _refuse(texts, raw, problem)
        return None


def _keep_converted(
    texts: ChunkTexts, raw: RawRow, row: Demonstration | Pair, prompt: tuple[Message, ...], answers: tuple[str, ...]
) -> None:
    asked = prompt[0].content if len(prompt) == 1 else "\n".join(message.content for message in prompt)
    first = first_user_turn(prompt)
    if first != asked:
        texts.firsts[len(texts.lines)] = first
    if len(prompt) > 1:
        texts.lasts[len(texts.lines)] = prompt[-1].content
    _keep(texts, raw, json.dumps(row.to_json(), ensure_ascii=False) + "\n", (asked, *answers))


def _keep(texts: ChunkTexts, raw: RawRow, line: str, parts: tuple[str, ...]) -> bool:
    """Add a usable row; false, and nothing is added, where its text cannot be encoded."""
    try:
        texts.lines.append(line.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    texts.numbers.append(raw.row)
    texts.problems.append(FINE)
    texts.parts.extend(parts)
    return True


def _refuse(texts: ChunkTexts, raw: RawRow, problem: RowProblem) -> None:
    row = QuarantinedRow(texts.kind, Source(raw.file, raw.row), problem.finding, problem.detail, raw.values)
    texts.lines.append(row_json(row.to_json()))
    texts.numbers.append(raw.row)
    texts.problems.append(PROBLEMS.index(problem.finding))
    texts.parts.extend([""] * TEXTS_PER_ROW[texts.kind])
