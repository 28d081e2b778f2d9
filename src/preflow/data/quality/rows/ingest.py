"""Raw rows to lines in the internal form, or to a named problem, and their texts for measuring.

Rows of plain text, nearly all of most files, are written without being converted; the others are converted.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from json.encoder import encode_basestring

from preflow.config.validation import ReadingSettings
from preflow.data.conversion import RowProblem, read_demonstration, read_pairs
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.cells import is_empty
from preflow.data.row_formats.names import KNOWN, normal
from preflow.data.row_formats.row import SOURCE, RowNotes
from preflow.data.row_formats.texts import needs_care
from preflow.data.rows import Demonstration, Message, Pair, Source, first_user_turn
from preflow.data.text import is_blank, row_json
from preflow.data.validated import DataKind, QuarantinedRow
from preflow.findings import FORM

#: Finding of a row that is quarantined before anything is measured, whatever its text holds.
TOO_LONG = "text_too_long"
#: ``problem`` of a row that was converted; the others are places in ``FORM``, from 1, and the last is ``TOO_LONG``.
FINE = 0
PROBLEMS = ("fine", *FORM, TOO_LONG)
#: Texts of a row: its prompt and its answers.
TEXTS_PER_ROW: dict[DataKind, int] = {"demonstrations": 2, "preferences": 3}
#: Distinct values of the column ``source`` that are counted in a chunk.
_SOURCES = 2000
#: Columns of plain texts, and the name of their format.
_QUICK = {
    "preferences": (("prompt", "chosen", "rejected"), "chosen and rejected"),
    "demonstrations": (("prompt", "completion"), "prompt and answer"),
}
#: What scores say of a pair, as columns of measures hold it.
SCORES = (None, "agree", "tie", "inverted")


@dataclass(slots=True)
class ReadingCounts:
    """How the rows of a chunk, a file or a set were read.

    Attributes:
        formats: Rows by the name of their format.
        used: Rows by column that holds something and was used: format, the file's name of it, and its name here.
        columns: Rows by column that holds something and was not used.
        turn_keys: The same by key of a turn.
        changed: Rows by what was changed on the way.
    """

    formats: Counter[str] = field(default_factory=Counter)
    used: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    turn_keys: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def note(self, notes: RowNotes) -> None:
        """Count a row that was read."""
        self.formats[notes.row_format] += 1
        self.used.update((notes.row_format, *names) for names in notes.used)
        self.columns.update(notes.columns)
        self.turn_keys.update(notes.turn_keys)
        self.changed.update(notes.changed)

    def add(self, other: "ReadingCounts") -> None:
        """Count the rows of another part too."""
        for name in ("formats", "used", "columns", "turn_keys", "changed"):
            getattr(self, name).update(getattr(other, name))


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
        scores: What the scores of each row say, a place in ``SCORES``.
        made: Whether each row was made of several rows or of one of several answers.
        reading: How the rows were read.
        most: Characters of a row above which it is quarantined unmeasured; none where it is measured all the same.
        too_long: Place of such a row to the characters of its parts.
    """

    kind: DataKind
    settings: ReadingSettings = field(default_factory=ReadingSettings)
    most: int | None = None
    too_long: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    problems: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    firsts: dict[int, str] = field(default_factory=dict)
    lasts: dict[int, str] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    scores: list[int] = field(default_factory=list)
    made: list[bool] = field(default_factory=list)
    reading: ReadingCounts = field(default_factory=ReadingCounts)
    _extras: dict[tuple[str, ...], tuple[str, ...] | None] = field(default_factory=dict)

    def extras(self, values: dict[str, object]) -> tuple[str, ...] | None:
        """Columns beside those of plain texts; none where one of them may say what the row means."""
        shape = tuple(values)
        if shape not in self._extras:
            used, _ = _QUICK[self.kind]
            found = tuple(name for name in shape if name not in used and name != SOURCE)
            self._extras[shape] = None if any(normal(name) in KNOWN for name in found) else found
        return self._extras[shape]


def ingest(
    kind: DataKind, file: str, rows: Iterable[RawRow], settings: ReadingSettings, most: int | None = None
) -> ChunkTexts:
    """Convert the rows of one file.

    Args:
        kind: What they are read as.
        file: Name of the file, as findings give it.
        rows: As the file holds them.
        settings: How they are read.
        most: Characters of a row above which it is quarantined unmeasured; none where it is measured all the same.
    """
    texts = ChunkTexts(kind, settings, most)
    quick, careful = (_quick_pair, _pair) if kind == "preferences" else (_quick_demonstration, _demonstration)
    quoted = encode_basestring(file)
    for raw in rows:
        if not quick(texts, raw, quoted):
            held = from_quarantine(raw)
            if held is raw or not quick(texts, held, quoted):
                careful(texts, held)
            raw = held  # noqa: PLW2901 - a row of a quarantine is what it holds
        column = SOURCE if raw.reading is None else raw.reading.columns.get(SOURCE, SOURCE)
        source = None if column is None else raw.values.get(column)
        if type(source) is str and (source in texts.sources or len(texts.sources) < _SOURCES):
            texts.sources[source] += 1
    return texts


def _plain_texts(texts: ChunkTexts, raw: RawRow) -> tuple[str, ...] | None:
    """The texts of a row that is plain texts and nothing that needs care; none for any other."""
    values = raw.values
    columns, _ = _QUICK[texts.kind]
    found = tuple(values.get(name) for name in columns)
    if (
        raw.malformed is not None
        or raw.reading is not None
        or not all(type(text) is str for text in found)
        or texts.extras(values) is None
    ):
        return None
    plain: tuple[str, ...] = found  # type: ignore[assignment]
    return None if any(is_blank(text) or needs_care(text) for text in plain) else plain


def _quick_pair(texts: ChunkTexts, raw: RawRow, file: str) -> bool:
    """Add a row of plain texts; false, and nothing is added, for any other."""
    plain = _plain_texts(texts, raw)
    if plain is None:
        return False
    prompt, chosen, rejected = plain
    # The bytes of json.dumps(Pair.to_json()) at 1.5 to 2.6 times its rate. orjson would be far faster still, but writes
    # no space after a comma or colon: every validated file, and the digests that later stages know it by, would change.
    line = (
        f'{{"prompt": [{{"role": "user", "content": {encode_basestring(prompt)}}}], '
        f'"chosen": [{{"role": "assistant", "content": {encode_basestring(chosen)}}}], '
        f'"rejected": [{{"role": "assistant", "content": {encode_basestring(rejected)}}}], '
        f'"file": {file}, "row": {raw.row}}}\n'
    )
    return _keep(texts, raw, line, plain) and _note_quick(texts, raw)


def _quick_demonstration(texts: ChunkTexts, raw: RawRow, file: str) -> bool:
    plain = _plain_texts(texts, raw)
    if plain is None:
        return False
    prompt, answer = plain
    line = (
        f'{{"messages": [{{"role": "user", "content": {encode_basestring(prompt)}}}, '
        f'{{"role": "assistant", "content": {encode_basestring(answer)}}}], '
        f'"context": 1, "file": {file}, "row": {raw.row}}}\n'
    )
    return _keep(texts, raw, line, plain) and _note_quick(texts, raw)


def _note_quick(texts: ChunkTexts, raw: RawRow) -> bool:
    """Count a row of plain texts."""
    columns, name_of_format = _QUICK[texts.kind]
    texts.reading.formats[name_of_format] += 1
    texts.reading.used.update((name_of_format, name, name) for name in columns)
    if not is_empty(raw.values.get(SOURCE)):
        texts.reading.used[(name_of_format, SOURCE, SOURCE)] += 1
    for name in texts.extras(raw.values) or ():
        if not is_empty(raw.values[name]):
            texts.reading.columns[name] += 1
    return True


def _pair(texts: ChunkTexts, raw: RawRow) -> None:
    try:
        pairs, notes = read_pairs(raw, texts.settings)
    except RowProblem as problem:
        _refuse(texts, raw, problem)
        return
    texts.reading.note(notes)
    for pair in pairs:
        answers = _answer(pair.chosen), _answer(pair.rejected)
        _keep_converted(texts, raw, pair, pair.prompt, answers, notes)


def _answer(turns: tuple[Message, ...]) -> str:
    """What an answer says; of several turns one below the other."""
    return "\n".join(turn.content for turn in turns)


def _demonstration(texts: ChunkTexts, raw: RawRow) -> None:
    try:
        shown, notes = read_demonstration(raw, texts.settings)
    except RowProblem as problem:
        _refuse(texts, raw, problem)
        return
    texts.reading.note(notes)
    _keep_converted(texts, raw, shown, shown.messages[:-1], (shown.messages[-1].content,), notes)


def _keep_converted(
    texts: ChunkTexts,
    raw: RawRow,
    row: Demonstration | Pair,
    prompt: tuple[Message, ...],
    answers: tuple[str, ...],
    notes: RowNotes,
) -> None:
    asked = prompt[0].content if len(prompt) == 1 else "\n".join(message.content for message in prompt)
    first = first_user_turn(prompt)
    place = len(texts.lines)
    if first != asked:
        texts.firsts[place] = first
    if len(prompt) > 1:
        texts.lasts[place] = prompt[-1].content
    _keep(texts, raw, json.dumps(row.to_json(), ensure_ascii=False) + "\n", (asked, *answers), notes)
    if place in texts.too_long:
        texts.firsts.pop(place, None)
        texts.lasts.pop(place, None)


def _keep(texts: ChunkTexts, raw: RawRow, line: str, parts: tuple[str, ...], notes: RowNotes | None = None) -> bool:
    """Add a usable row; false, and nothing is added, where its text cannot be encoded."""
    if texts.most is not None and (size := sum(map(len, parts))) > texts.most:
        detail = f"the row has {size} characters (validation.maximum_characters is {texts.most})"
        texts.too_long[len(texts.lines)] = tuple(map(len, parts))
        _refuse(texts, raw, RowProblem(TOO_LONG, detail), size)
        return True
    try:
        texts.lines.append(line.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    texts.numbers.append(raw.row)
    texts.problems.append(FINE)
    texts.parts.extend(parts)
    texts.scores.append(SCORES.index(notes.scores) if notes else 0)
    texts.made.append(notes.made if notes else False)
    return True


def _refuse(texts: ChunkTexts, raw: RawRow, problem: RowProblem, measure: float | None = None) -> None:
    source = Source(raw.file, raw.row)
    row = QuarantinedRow(texts.kind, source, problem.finding, problem.detail, raw.values, measure)
    texts.lines.append(row_json(row.to_json()))
    texts.numbers.append(raw.row)
    texts.problems.append(PROBLEMS.index(problem.finding))
    texts.parts.extend([""] * TEXTS_PER_ROW[texts.kind])
    texts.scores.append(0)
    texts.made.append(False)
