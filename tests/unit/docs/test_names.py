"""Modules, files and symbols that docstrings, comments and documents name exist."""

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.tools.words import ROOT, SKIPPED

#: Dotted names whose first part is a package of this repository, and paths of Python files.
DOTTED = re.compile(r"(?<![\w./:@-])(?:preflow|flows|tasks|expectations)(?:\.[A-Za-z_]\w*)+(?![\w-]*[/@])")
PATHS = re.compile(r"(?<![\w./:{}<>*-])(?:\w+/)+\w+\.py\b")
PROSE = (".md", ".yaml", ".yml", ".toml")
#: The changelog names what moved, and these tests what does not exist.
HISTORY = {"CHANGELOG.md", "tests/unit/docs/test_names.py"}
#: What ends in a file's suffix is a file of a run, and no module.
SUFFIXES = (".json", ".jsonl", ".yaml", ".toml", ".md", ".log", ".db")


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and comments of a Python file, or all lines of another file, with their line numbers."""
    text = file.read_text("utf-8")
    if file.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    statement_begins = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and statement_begins
        if token.type == tokenize.COMMENT or is_docstring:
            yield from enumerate(token.string.splitlines(), token.start[0])
        if token.type not in {tokenize.COMMENT, tokenize.NL}:
            statement_begins = token.type in {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository that is no build output."""
    found = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if path.is_file() and not any(part in SKIPPED or part.startswith(".") for part in inside[:-1]):
            found.append(path)
    return tuple(found)


@cache
def ends() -> frozenset[str]:
    """Every path in the repository, and each of its ends of two parts or more."""
    parts = [file.relative_to(ROOT).parts for file in files()]
    return frozenset("/".join(each[first:]) for each in parts for first in range(len(each) - 1))


@cache
def symbols(file: Path) -> frozenset[str]:
    """The names in a module's code."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline)
    return frozenset(token.string for token in tokens if token.type == tokenize.NAME)


@cache
def exists(name: str) -> bool:
    """Whether a dotted name is a package, a module, or a symbol that is written in one."""
    parts = name.split(".")
    place = ROOT / "src" if parts[0] == "preflow" else ROOT
    for number, part in enumerate(parts):
        place /= part
        module = place.with_suffix(".py") if not place.is_dir() else place / "__init__.py"
        rest = parts[number + 1 :]
        if not module.is_file():
            return False
        if not place.is_dir() or (rest and not _is_module(place / rest[0])):
            return set(rest) <= symbols(module)
    return True


def _is_module(place: Path) -> bool:
    return place.is_dir() or place.with_suffix(".py").is_file()


def missing(line: str) -> list[str]:
    """The names in a line of prose that do not exist."""
    dotted = [name for name in DOTTED.findall(line) if not name.endswith(SUFFIXES) and not exists(name)]
    return dotted + [path for path in PATHS.findall(line) if path not in ends()]


@pytest.mark.slow
def test_every_module_file_and_symbol_that_is_named_exists() -> None:
    wrong = []
    for file in files():
        name = file.relative_to(ROOT).as_posix()
        if file.suffix in (".py", *PROSE) and name not in HISTORY:
            wrong += [f"{name}:{number}: {each}" for number, line in prose(file) for each in missing(line)]

    assert not wrong


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("see ``preflow.models.packed.layout``", []),
        ("see ``preflow.errors.ConfigError``, in src/preflow/errors.py", []),
        ("``expectations.row_facts.RowFacts.frames`` and models/heap.py", []),
        ("``from preflow.config import Recipe``; preflow.json is a file", []),
        ("see models/layout.py", ["models/layout.py"]),
        ("see ``preflow.models.layout``", ["preflow.models.layout"]),
        ("``tasks.caching.identity`` and ``flows.plan.make_plan``", ["tasks.caching.identity", "flows.plan.make_plan"]),
        ("``preflow.errors.NoSuchError``", ["preflow.errors.NoSuchError"]),
    ],
)
def test_names_that_do_not_exist_are_found(line: str, expected: list[str]) -> None:
    assert missing(line) == expected


def test_code_is_not_read_as_prose(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""One."""\n\nvalue = "two"  # three\n\n\ndef f():\n    """Four."""\n    return "five"\n', "utf-8")

    assert list(prose(file)) == [(1, '"""One."""'), (3, "# three"), (7, '"""Four."""')]
