"""What a recipe for a user's own files needs to know of them, from their first rows."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath

from flows.new_recipe.recognition import first_rows, recognised_kinds, require_one_kind, sources_of
from preflow.config.validation import ReadingSettings, RowReading
from preflow.data.conversion import RowProblem, read_demonstration, read_pairs
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.split_names import split_of
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.table import described, kinds
from preflow.data.row_formats.verdicts import has_verdict, join_verdicts
from preflow.data.rows import Demonstration, Pair, first_user_turn
from preflow.data.splits import split_key
from preflow.data.validated import DataKind
from preflow.errors import ConfigError

#: Rows of an entry that are looked at.
_ROWS = 1000
#: Words in names of columns that tell what a column holds, where its whole name is none that is known.
_WORDS = {
    "chosen": {
        "chosen", "preferred", "best", "better", "good", "winner", "winning", "accepted", "positive", "pos", "correct",
    },
    "rejected": {
        "rejected", "dispreferred", "worst", "worse", "bad", "loser", "losing", "negative", "neg", "incorrect", "wrong",
    },
    "prompt": {"prompt", "question", "query", "instruction", "ask", "asked", "request", "problem", "user", "human"},
    "completion": {"answer", "response", "completion", "output", "reply", "assistant", "bot", "target", "solution"},
}  # fmt: skip
#: Words that turn those of the preferred answer into those of the other.
_NOT = {"not", "non", "no", "un", "never", "dis"}


@dataclass(slots=True)
class FileFacts:
    """What one entry (a file, a folder, a hub data set) holds.

    Attributes:
        entry: As the user gave it.
        kind: Demonstrations or pairs.
        how: What was recognised, in one line.
        reading: Format and columns, where the rows' own columns do not say them.
        settings: How its rows are read where more than one way is right.
        held_out: Whether its name says that it is for evaluation.
        keys: ``split_key`` of each usable row that was looked at.
        characters: Of each such row.
        changed: What was changed on the way.
    """

    entry: str
    kind: DataKind
    how: str = ""
    reading: RowReading = field(default_factory=RowReading)
    settings: ReadingSettings = field(default_factory=ReadingSettings)
    held_out: bool = False
    keys: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)


def file_facts(entry: str, kind: DataKind | None = None) -> FileFacts:
    """Look at the first rows of an entry.

    Args:
        entry: A file, a folder or a hub data set; a relative path starts at the working folder.
        kind: What it holds; found out where not given.

    Raises:
        ConfigError: Its rows can be read in two ways, in none, or none of them can be used.
        DataFileError: It is absent or cannot be read.
    """
    sources = sources_of(entry)
    rows = _first(sources, RowReading())
    if not rows:
        raise ConfigError(f"{entry} holds no row that can be read: preflow validate {entry} says why")
    seen = recognised_kinds(rows if len(sources) == 1 else [*rows, *first_rows(sources)], ReadingSettings())
    if kind is None:
        require_one_kind(entry, seen, "" if len(sources) == 1 else ", or the files one by one")
    facts = FileFacts(entry, kind or _first_kind(seen), held_out=_is_held_out(entry))
    if not seen:
        facts.reading = _by_words(entry, rows)
        rows = _first(sources, facts.reading)
        facts.kind = kind or _first_kind(recognised_kinds(rows, ReadingSettings()))
    elif all(form.name == "text" for raw in rows for _, form in kinds(Row.of(raw, facts.settings))):
        facts.reading = RowReading(format="text")
        rows = _first(sources, facts.reading)
    _read(facts, rows)
    return facts


def _first_kind(seen: dict[DataKind, str]) -> DataKind:
    for kind in seen:
        return kind
    return "preferences"


def _is_held_out(entry: str) -> bool:
    return split_of(PurePath(PurePath(entry).name)) == "other"


def _first(sources: Iterable[DataSource], reading: RowReading) -> list[RawRow]:
    """The first rows that can be parsed, to be read in a way."""
    said = None if reading == RowReading() else reading
    rows = (row for source in sources for row in read_rows(source.model_copy(update={"reading": said})))
    return [row for row in map(from_quarantine, islice(rows, _ROWS)) if row.malformed is None]


def _by_words(entry: str, rows: list[RawRow]) -> RowReading:
    """Columns by the words of their names.

    Raises:
        ConfigError: They do not tell a prompt with its answers.
    """
    names = list(dict.fromkeys(name for row in rows for name, value in row.values.items() if value))
    texts = {name for row in rows for name, value in row.values.items() if isinstance(value, str | list | dict)}
    like = {name: _like(name) for name in names if name in texts}
    compared = {name for name, ours in like.items() if ours in {"chosen", "rejected"}}
    once = {ours: name for name, ours in like.items() if ours is not None and [*like.values()].count(ours) == 1}
    found = {ours: once[ours] for ours in _WORDS if ours in once}
    if {"chosen", "rejected"} <= found.keys():
        found.pop("completion", None)
    elif {"prompt", "completion"} <= found.keys() and not compared:  # beside one, an answer may be the worse one
        found = {ours: found[ours] for ours in ("prompt", "completion")}
    else:
        raise ConfigError(
            f"{entry} has the columns {', '.join(names[:12]) or '(none)'}, which are those of no known format: name "
            "its columns in a recipe, as dataset: {path: ..., columns: {prompt: ..., chosen: ..., rejected: ...}}"
        )
    return RowReading(columns={ours: name for ours, name in found.items() if ours != name})


def _like(name: str) -> str | None:
    """What a column's name says of it; of an answer, first whether it is the better or the worse one."""
    words = _words(name)
    if words & _WORDS["chosen"] and words & _NOT:
        return "rejected"
    return next((ours for ours, known in _WORDS.items() if known & words), None)


def _words(name: str) -> set[str]:
    """Words of a column's name, also of one in camel case."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _read(facts: FileFacts, rows: list[RawRow]) -> None:
    """Convert the rows that were looked at.

    Raises:
        ConfigError: None can be used; says why for the first.
    """
    if facts.kind == "preferences" and any(has_verdict(Row.of(raw, facts.settings)) for raw in rows):
        joined = list(join_verdicts(rows, facts.settings))
        if len(joined) < len(rows):
            rows = joined
        else:  # no prompt has both verdicts: the favourable ones can be imitated
            facts.kind = "demonstrations"
            facts.settings = ReadingSettings(desirable_rows="demonstrations")
    forms: dict[str, Counter[tuple[str, str]]] = {}
    problem: str | None = None
    for raw in rows:
        try:
            for row, form, used in _converted(facts, raw):
                forms.setdefault(form, Counter()).update(used)
                prompt = row.messages if isinstance(row, Demonstration) else row.prompt
                facts.keys.append(split_key(first_user_turn(prompt)))
                facts.characters.append(_characters(row))
        except RowProblem as found:
            problem = problem or f"{raw.file}:{raw.row}: {found.finding}: {found.detail}"
    if not facts.keys:
        raise ConfigError(f"none of the first {len(rows)} rows of {facts.entry} can be used as {facts.kind}: {problem}")
    what = {"demonstrations": "demonstrations", "preferences": "pairs"}[facts.kind]
    facts.how = "; ".join(f"{form} {what}: {described(form, used)}" for form, used in forms.items())


def _converted(
    facts: FileFacts, raw: RawRow
) -> Iterator[tuple[Demonstration | Pair, str, tuple[tuple[str, str], ...]]]:
    if facts.kind == "demonstrations":
        shown, notes = read_demonstration(raw, facts.settings)
        found: list[Demonstration | Pair] = [shown]
    else:
        pairs, notes = read_pairs(raw, facts.settings)
        found = [*pairs]
    facts.changed |= notes.changed
    for row in found:
        yield row, notes.row_format, notes.used


def _characters(row: Demonstration | Pair) -> int:
    if isinstance(row, Demonstration):
        return sum(len(turn.content) for turn in row.messages)
    prompt, *answers = (sum(len(turn.content) for turn in part) for part in (row.prompt, row.chosen, row.rejected))
    return prompt + max(answers)
