"""The word check: private words in code and documents, with the field's term for each.

``python -m docs.tools.words [PATH ...]`` prints ``file:line: 'found': write TERM`` for every private word of
``docs/glossary.yaml`` and exits with 1 if there is one. It reads Python files (docstrings, comments, strings and
identifiers), Markdown and YAML; without a path, all of the repository.

A use that is justified carries ``glossary: allow WORD`` in a comment on its line, on the line above, or on the last
line of the string that it is in; ``glossary: allow-file WORD`` allows a word in a whole file.
"""

import io
import keyword
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.yaml"
SUFFIXES = (".py", ".md", ".yaml", ".yml")
#: Folders of which nothing is read.
SKIPPED = {"build", "dist", "site", "node_modules", "__pycache__"}

#: Stands where code is: no phrase reaches over it.
_CODE = "\0"
_LITERALS = {
    kind for name in ("STRING", "FSTRING_START", "FSTRING_END") if (kind := getattr(tokenize, name, None)) is not None
}
_FSTRING_TEXT = getattr(tokenize, "FSTRING_MIDDLE", None)
_QUOTES = re.compile(r"^[A-Za-z]{0,2}('''|\"\"\"|'|\")|('''|\"\"\"|'|\")$")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ALLOWED = re.compile(r"glossary: (allow|allow-file) ([^#>\n]+?)\s*(?:-->|$)", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class PrivateWord:
    """A word that only this project would use so.

    Attributes:
        word: As the glossary shows it.
        use: The field's term.
        text: Matches it in prose, and in identifiers split into words.
        names: Matches identifiers, split into words, as a whole.
        public: Identifiers that users write or read, and which therefore stay.
    """

    word: str
    use: str
    text: re.Pattern[str] | None
    names: re.Pattern[str] | None
    public: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Use:
    """A private word in a file.

    Attributes:
        file: The file.
        line: Its line, from 1.
        found: What is written there.
        word: The private word.
    """

    file: Path
    line: int
    found: str
    word: PrivateWord

    def __str__(self) -> str:
        file = self.file.relative_to(ROOT) if self.file.is_relative_to(ROOT) else self.file
        return f"{file}:{self.line}: '{self.found}': write {self.word.use}"


def private_words(glossary: Path = GLOSSARY) -> tuple[PrivateWord, ...]:
    """The private words of a glossary.

    Args:
        glossary: The YAML file.
    """
    read = _read(glossary)
    return (
        *(
            PrivateWord(
                entry["word"],
                entry["use"],
                _pattern(entry.get("text")),
                _pattern(entry.get("names"), names=True),
                frozenset(entry.get("public", ())),
            )
            for entry in read["private_words"]
        ),
        *(PrivateWord(name, use, None, _pattern([name], names=True)) for name, use in read["private_names"].items()),
    )


def uses(file: Path, words: tuple[PrivateWord, ...]) -> list[Use]:
    """The private words in a file that it does not allow itself, by line.

    Args:
        file: A file of one of the ``SUFFIXES``.
        words: The words.
    """
    source = file.read_text("utf-8")
    text, names, ends = _python(source) if file.suffix == ".py" else (source, (), {})
    lines = source.splitlines()
    allowed = _ALLOWED.findall(source)
    whole = {name for scope, listed in allowed if scope == "allow-file" for name in _names(listed)}
    found = []
    occurrences = {(line, name, word) for line, name in [*_split_names(text), *names] for word in _held(name, words)}
    for word in words:
        occurrences |= {(line, matched, word) for line, matched in _in_text(text, word)}
    for line, matched, word in occurrences:
        if not whole & {*_names(word.word)} and not _is_allowed(word, lines, {line, line - 1, ends.get(line, line)}):
            found.append(Use(file, line, matched, word))
    return sorted(found, key=lambda use: (use.line, use.found))


def files(paths: Sequence[Path], glossary: Path = GLOSSARY) -> Iterator[Path]:
    """The files to read.

    Args:
        paths: Files and folders.
        glossary: Names what is data.
    """
    excluded = [ROOT / name for name in _read(glossary)["excluded"]]
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            inside = file.relative_to(path).parts[:-1]
            if file.suffix not in SUFFIXES or not file.is_file():
                continue
            if any(part in SKIPPED or part.startswith(".") for part in inside):
                continue
            if not any(file.resolve().is_relative_to(folder) for folder in excluded):
                yield file


def main(arguments: Sequence[str]) -> int:
    """Print every private word in the given paths, or in the whole repository.

    Args:
        arguments: Paths.

    Returns:
        1 if there is one.
    """
    words = private_words()
    found = [use for file in files([Path(each) for each in arguments] or [ROOT]) for use in uses(file, words)]
    for use in found:
        print(use)
    if found:
        print(f"{len(found)} private words: docs/glossary.yaml lists them, and how a justified use is allowed")
    return int(bool(found))


def _read(glossary: Path) -> dict[str, Any]:
    """The glossary's data."""
    read: dict[str, Any] = yaml.safe_load(glossary.read_text("utf-8"))
    return read


def _pattern(alternatives: list[str] | None, *, names: bool = False) -> re.Pattern[str] | None:
    """Any of some regular expressions between word boundaries; a space in one matches any white space.

    Prose is matched in lower case, which is three times as fast as a pattern that ignores case.
    """
    if not alternatives:
        return None
    joined = "|".join(f"(?:{each})" for each in alternatives)
    # Inside a lookbehind, whose width is fixed, a space stays a space.
    parts = re.split(r"(\(\?<!.*?\))", joined)
    spread = "".join(part if part.startswith("(?<!") else part.replace(" ", r"\s+") for part in parts)
    return re.compile(rf"\b(?:{spread})\b", re.IGNORECASE if names else 0)


def _in_text(text: str, word: PrivateWord) -> Iterator[tuple[int, str]]:
    """Line and wording of each occurrence in prose."""
    for match in word.text.finditer(text.lower()) if word.text else ():
        yield text.count("\n", 0, match.start()) + 1, " ".join(text[match.start() : match.end()].split())


@cache
def _held(name: str, words: tuple[PrivateWord, ...]) -> tuple[PrivateWord, ...]:
    """The words that an identifier holds."""
    split = " ".join(_CAMEL.sub("_", name).strip("_").split("_"))
    low = split.lower()
    held = []
    for word in words:
        if name in word.public:
            continue
        as_prose = word.text and (word.text.search(low) if " " in low else word.text.fullmatch(low))
        if as_prose or (word.names and word.names.fullmatch(split)):
            held.append(word)
    return tuple(held)


def _split_names(text: str) -> list[tuple[int, str]]:
    """Identifiers of several words that prose mentions, with their lines."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        found += [(number, name) for name in _IDENTIFIER.findall(line) if "_" in name.strip("_") or _CAMEL.search(name)]
    return found


def _python(source: str) -> tuple[str, list[tuple[int, str]], dict[int, int]]:
    """The prose of a Python file in its place, its identifiers, and for each line of a string the string's last.

    Strings and comments keep their place, quotes and ``#`` become white space, so that a phrase goes on from one to the
    next; where code is, nothing goes on.
    """
    lines = [[_CODE if char.strip() else char for char in line] for line in source.split("\n")]
    names: list[tuple[int, str]] = []
    ends: dict[int, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (row, column), last = token.start, token.end[0]
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            names.append((row, token.string))
        if token.type == tokenize.COMMENT:
            shown = re.sub("^#:?", lambda mark: " " * len(mark[0]), token.string)
        elif token.type in _LITERALS:
            shown = _QUOTES.sub(lambda quotes: " " * len(quotes[0]), token.string)
        elif token.type == _FSTRING_TEXT:
            shown = token.string
        else:
            continue
        ends |= dict.fromkeys(range(row, last + 1), last)
        for offset, piece in enumerate(shown.split("\n")):
            start = column if offset == 0 else 0
            lines[row - 1 + offset][start : start + len(piece)] = piece
    return "\n".join(re.sub(f"{_CODE}[{_CODE} ]*", _CODE, "".join(line)) for line in lines), names, ends


def _names(listed: str) -> list[str]:
    """Words that a comment allows, or by which an entry is known: parted by commas, without what brackets explain."""
    return [each.strip().lower() for each in re.sub(r"\(.*?\)", "", listed).split(",")]


def _is_allowed(word: PrivateWord, lines: Sequence[str], places: set[int]) -> bool:
    """Whether one of some lines, counted from 1, allows a word."""
    near = "\n".join(lines[place - 1] for place in places if 0 < place <= len(lines))
    return any(set(_names(listed)) & set(_names(word.word)) for _, listed in _ALLOWED.findall(near))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
