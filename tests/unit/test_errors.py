"""The tree of errors, its picture, and the page that explains each class."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from prefect.states import exception_to_failed_state

from docs.tools.pages import on_page_markdown
from docs.tools.words import ROOT
from flows.commands.explain import PAGE
from preflow import errors
from preflow.errors import ConfigError, MissingDependencyError, ModelNotFoundError, PreflowError


def classes(root: type[PreflowError] = PreflowError) -> Iterator[type[PreflowError]]:
    """A class and all below it that ``preflow.errors`` defines."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


def drawn() -> dict[str, str | None]:
    """Every class of the drawn tree with its parent: the depth of a line is the column at which its name begins."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in str(errors.__doc__).splitlines():
        if found := re.match(r"^    (?P<lines>[ │├└─]*)(?P<name>[A-Z]\w+)", line):
            depth = len(found["lines"]) // 4
            path[depth:] = [found["name"]]
            parents[found["name"]] = path[depth - 1] if depth else None
    return parents


def test_the_drawn_tree_has_every_class_below_its_parent() -> None:
    assert drawn() == {cls.__name__: None if cls is PreflowError else cls.__mro__[1].__name__ for cls in classes()}


def test_the_drawn_tree_names_the_class_of_the_standard_library_that_each_branch_inherits_from() -> None:
    named = dict(re.findall(r"(\w+Error) \((\w+)\)", str(errors.__doc__)))
    own = {
        cls.__name__: base.__name__ for cls in classes() for base in cls.__bases__ if not issubclass(base, PreflowError)
    }
    assert named == {name: base for name, base in own.items() if name != "PreflowError"}


def test_every_error_lives_in_this_module() -> None:
    import tasks.runtime.stage  # noqa: F401

    def elsewhere(cls: type[PreflowError]) -> Iterator[str]:
        for child in cls.__subclasses__():
            if child.__module__ != errors.__name__ and not child.__module__.startswith("tests"):
                yield child.__qualname__
            yield from elsewhere(child)

    assert list(elsewhere(PreflowError)) == []


def test_the_page_has_one_entry_for_each_class_and_no_other() -> None:
    entries = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert entries == list(drawn())


@pytest.mark.parametrize("cls", list(classes())[1:], ids=lambda cls: cls.__name__)
def test_every_entry_says_what_the_error_means(cls: type[PreflowError]) -> None:
    _, _, entry = PAGE.read_text(encoding="utf-8").partition(f"## {cls.__name__}\n")
    assert entry.partition("\n## ")[0].strip().startswith("**Meaning.**")


def test_the_documentation_shows_the_page() -> None:
    shown = on_page_markdown((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    assert shown.split() == PAGE.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("cls", [ConfigError, MissingDependencyError, ModelNotFoundError])
def test_a_printed_error_names_its_entry_and_its_message_alone_does_not(cls: type[PreflowError]) -> None:
    error = cls("got 1, expected 2")
    assert str(error) == f"got 1, expected 2 (preflow explain {cls.__name__})"
    assert error.message == "got 1, expected 2"


def test_prefects_state_message_names_the_entry() -> None:
    state = asyncio.run(exception_to_failed_state(ConfigError("got 1, expected 2")))
    assert state.message == "ConfigError: got 1, expected 2 (preflow explain ConfigError)"
