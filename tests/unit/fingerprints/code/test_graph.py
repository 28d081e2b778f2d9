"""Small source trees are edited: what computes something else has another digest, what does not has the same."""

from pathlib import Path

import pytest

from tests.unit.fingerprints.code.code_trees import (
    CLASSES,
    CONDITIONAL,
    DATACLASS,
    DECORATED,
    DEFAULTS,
    DYNAMIC,
    FACTORIAL,
    HANDED_ON,
    HANDED_ON_PACKAGE,
    HELPER,
    HINTS,
    INNER_CLASS,
    NAMED,
    NESTED,
    OWN_LEN,
    PATCHED,
    PYDANTIC,
    READ_AS_LOCAL,
    REEXPORTED,
    REGISTERED,
    SHADOWED,
    SILENT,
    STARRED,
    STARRED_PACKAGE,
    STARRED_TWICE,
    TELLS,
    TWINS,
    USED_UP,
    Edit,
    digest,
)

HITS = {
    "a private helper under another name": Edit(HELPER, "main.py", "_more", "_rest"),
    "a private helper of another module under another name": Edit(HELPER, "tools.py", "_two", "_second"),
    "a definition that nothing uses": Edit(HELPER, "tools.py", "", "def unused(): return 8\n"),
    "a constant that nothing uses": Edit(HELPER, "main.py", "LIMIT = 3", "LIMIT = 4"),
    "definitions in another order": Edit(
        HELPER,
        "tools.py",
        HELPER["tools.py"],
        "def _two(): return 2\ndef twice(x): return _two() * x\n",
    ),
    "other names in a circle": Edit(FACTORIAL, "main.py", "odd", "a_odd"),
    "another order in a circle": Edit(
        FACTORIAL,
        "main.py",
        FACTORIAL["main.py"],
        """
            def odd(x): return x != 0 and even(x - 1)
            def even(x): return x == 0 or odd(x - 1)
            def run(x): return even(x)
        """,
    ),
    "a docstring": Edit(TELLS, "main.py", "What it does.", "What else it does."),
    "the text of an error": Edit(TELLS, "main.py", "expected more", "take more"),
    "a part of an error's text that is made of other texts": Edit(SILENT, "main.py", '", ".join', '"; ".join'),
    "a part of an error's text that a local name holds": Edit(TELLS, "main.py", "is below 0", "is negative"),
    "a note": Edit(TELLS, "main.py", "x is {x}", "now x is {x}"),
    "no note": Edit(TELLS, "main.py", 'observer.note(f"x is {x}")', "pass"),
    "a log line": Edit(TELLS, "main.py", "computed %s", "done with %s"),
    "a warning": Edit(TELLS, "main.py", '"old"', '"very old"'),
    "an assertion's text": Edit(TELLS, "main.py", "x is large", "x is too large"),
    "an annotation": Edit(NESTED, "main.py", "def run(x):", "def run(x: int) -> int:"),
    "an annotation of a dataclass's field": Edit(DATACLASS, "main.py", "size: int", "size: float"),
    "a re-exported module's other definitions": Edit(REEXPORTED, "inner/deep.py", "return x\n", "return -x\n"),
}
MISSES = {
    "a number of a helper's helper": Edit(HELPER, "tools.py", "return 2", "return 3"),
    "a number in a circle": Edit(FACTORIAL, "main.py", "x == 0", "x == 1"),
    "another member of a circle": Edit(FACTORIAL, "main.py", "x != 0 and even", "x != 0 and odd"),
    "where a circle is entered": Edit(FACTORIAL, "main.py", "return even(x)", "return odd(x)"),
    "a condition of an error": Edit(TELLS, "main.py", "if x < 0", "if x < 1"),
    "another error": Edit(TELLS, "main.py", "raise ValueError", "raise KeyError"),
    "no error": Edit(TELLS, "main.py", 'raise ValueError(text + ": expected more")', "pass"),
    "an assertion": Edit(TELLS, "main.py", "assert x < 7", "assert x < 8"),
    "what an observer receives that is no note": Edit(TELLS, "main.py", "observer.score(x)", "observer.score(-x)"),
    "code that is imported by a computed name": Edit(DYNAMIC, "plugin.py", "return 1", "return 2"),
    "code of a module that a text names": Edit(NAMED, "plugin.py", "return 1", "return 2"),
    "code of a module that is handed on": Edit(HANDED_ON, "plugin.py", "return 1", "return 2"),
    "code that a package re-exports that is handed on": Edit(
        HANDED_ON_PACKAGE, "inner/plugin.py", "return 1", "return 2"
    ),
    "code that comes by a star": Edit(STARRED, "tools.py", "2 * x", "3 * x"),
    "code that comes by the first of two stars": Edit(STARRED_TWICE, "first.py", "2 * x", "4 * x"),
    "code that comes by the second of two stars": Edit(STARRED_TWICE, "second.py", "3 * x", "4 * x"),
    "code that a package re-exports by a star": Edit(STARRED_PACKAGE, "inner/tools.py", "2 * x", "3 * x"),
    "code that a package re-exports": Edit(REEXPORTED, "inner/deep.py", "2 * x", "3 * x"),
    "what a package re-exports": Edit(REEXPORTED, "inner/__init__.py", "double as", "other as"),
    "a function that a call registers": Edit(REGISTERED, "rules.py", "return 1", "return 2"),
    "no registration": Edit(REGISTERED, "rules.py", "register(first)", ""),
    "a function that a decorator registers": Edit(DECORATED, "rules.py", "return 1", "return 2"),
    "a function that another module puts in its place": Edit(PATCHED, "patch.py", "3 * x", "4 * x"),
    "no other function in its place": Edit(PATCHED, "patch.py", "tools.twice = _thrice", ""),
    "a default of a dataclass's field": Edit(DATACLASS, "main.py", "size: int = 1", "size: int = 2"),
    "a dataclass's field that becomes none": Edit(DATACLASS, "main.py", "size: int", "size: ClassVar[int]"),
    "the order of a dataclass's fields": Edit(
        DATACLASS,
        "main.py",
        'kind: str = "a"\n            size: int = 1',
        'size: int = 1\n            kind: str = "a"',
    ),
    "an annotation that a base class reads": Edit(PYDANTIC, "main.py", "size: int", "size: float"),
    "an annotation that is read when it runs": Edit(HINTS, "main.py", "x: int", "x: float"),
    "a default argument": Edit(DEFAULTS, "main.py", "by=2", "by=3"),
    "a default argument of a keyword": Edit(DEFAULTS, "main.py", "to=5", "to=6"),
    "no default argument": Edit(DEFAULTS, "main.py", "by=2", "by"),
    "an attribute of a class in a function": Edit(INNER_CLASS, "main.py", "weight = 4", "weight = 5"),
    "an attribute under a condition of a class in a function": Edit(INNER_CLASS, "main.py", "bias = 5", "bias = 6"),
    "where a file is moved whose new path nothing reads": Edit(SILENT, "main.py", '"final"', '"elsewhere"'),
    "what uses up an iterator, though only a text reads it": Edit(
        USED_UP, "main.py", "min(rows)", "min(rows, key=abs)"
    ),
    "a function of the project called len": Edit(OWN_LEN, "tools.py", "SEEN.append(x)", "SEEN.append(-x)"),
    "a local name that evaluated text reads": Edit(READ_AS_LOCAL, "main.py", "rate = 2", "rate = 3"),
    "one of two equal classes in place of the other": Edit(TWINS, "main.py", "return Wide()", "return Tall()"),
    "an inner function": Edit(NESTED, "main.py", "y + _one()", "y - _one()"),
    "what an inner function uses": Edit(NESTED, "main.py", "return 1", "return 2"),
    "a definition under a condition": Edit(CONDITIONAL, "main.py", "return 1", "return 3"),
    "the condition of a definition": Edit(CONDITIONAL, "main.py", '"linux"', '"darwin"'),
    "a definition in place of a library": Edit(CONDITIONAL, "main.py", "x + 5", "x + 6"),
    "an attribute of a class": Edit(CLASSES, "main.py", "weight = 4", "weight = 5"),
    "a method of a base class": Edit(CLASSES, "base.py", "x * self", "x + self"),
    "an attribute of a base class's base": Edit(CLASSES, "base.py", "bias = 1", "bias = 2"),
    "another base class": Edit(CLASSES, "base.py", "class Base(Root)", "class Base"),
    "a definition whose name is a local one too": Edit(SHADOWED, "main.py", "return 2", "return 3"),
}


@pytest.mark.parametrize("edit", HITS.values(), ids=HITS)
def test_what_computes_the_same_has_the_same_digest(tmp_path: Path, edit: Edit) -> None:
    assert edit.edited() != edit.files
    assert digest(tmp_path, edit.edited()) == digest(tmp_path, edit.files)


@pytest.mark.parametrize("edit", MISSES.values(), ids=MISSES)
def test_what_computes_something_else_has_another_digest(tmp_path: Path, edit: Edit) -> None:
    assert edit.edited() != edit.files
    assert digest(tmp_path, edit.edited()) != digest(tmp_path, edit.files)


def test_a_moved_module_has_the_same_digest(tmp_path: Path) -> None:
    moved = {
        "main.py": HELPER["main.py"].replace("pkg.tools", "pkg.inner.numbers"),
        "inner/__init__.py": "",
        "inner/numbers.py": HELPER["tools.py"],
    }
    assert digest(tmp_path, moved) == digest(tmp_path, HELPER)


def test_one_of_two_equal_definitions_in_place_of_the_other_has_the_same_digest(tmp_path: Path) -> None:
    texts = {"main.py": "def a(x): return x + 1\ndef b(y): return y + 2\ndef run(x): return a(x) * b(x)"}
    equal = {"main.py": "def a(x): return x + 1\ndef b(x): return x + 1\ndef run(x): return a(x) * b(x)"}
    swapped = {"main.py": equal["main.py"].replace("a(x) * b(x)", "b(x) * a(x)")}
    assert digest(tmp_path, equal) == digest(tmp_path, swapped) != digest(tmp_path, texts)


def test_two_definitions_that_replace_each_other_are_distinguished(tmp_path: Path) -> None:
    texts = {"main.py": "def a(x): return x + 1\ndef b(x): return x + 2\ndef run(x): return a(x) - b(x)"}
    swapped = {"main.py": texts["main.py"].replace("a(x) - b(x)", "b(x) - a(x)")}
    assert digest(tmp_path, swapped) != digest(tmp_path, texts)


def test_a_changed_default_argument_has_another_digest(tmp_path: Path) -> None:
    texts = [{"main.py": f"def run(x, *, by={by}): return x * by"} for by in (2, 3)]
    assert digest(tmp_path, texts[0]) != digest(tmp_path, texts[1])


RECIPE = {
    "config/__init__.py": "",
    "config/recipe.py": """
        class Recipe:
            @property
            def steps(self): return self._all(3)
            def _all(self, count): return [count] + self.later.rest
            def shown(self): return 1
        class Later:
            @property
            def rest(self): return _none()
        def _none(): return []
    """,
    "main.py": "def run(recipe): return recipe.steps\n",
}


@pytest.mark.parametrize(("old", "new"), [("_all(3)", "_all(4)"), ("[count] +", "2 * [count] +"), ("[]", "[1]")])
def test_what_a_property_of_the_settings_calls_counts(tmp_path: Path, old: str, new: str) -> None:
    """Methods of ``self`` and of its fields, and functions, though the module as a whole does not count."""
    before = digest(tmp_path, RECIPE, "preflow.main:run", {"preflow.config"})
    edited = Edit(RECIPE, "config/recipe.py", old, new).edited()
    assert digest(tmp_path, edited, "preflow.main:run", {"preflow.config"}) != before
    unused = Edit(RECIPE, "config/recipe.py", "return 1", "return 2").edited()
    assert digest(tmp_path, unused, "preflow.main:run", {"preflow.config"}) == before


ERRORS = {
    "errors.py": """
        class PreflowError(Exception):
            def __str__(self): return "an error"
        class DataError(PreflowError, ValueError): ...
        class ModelError(PreflowError): ...
        class DownloadError(DataError): ...
    """,
    "main.py": """
        from preflow.errors import DataError, DownloadError
        def run(x):
            try:
                raise DownloadError(x)
            except DataError:
                return 1
    """,
}


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        ("DownloadError(DataError)", "DownloadError(ModelError)", True),
        ("DataError(PreflowError, ValueError)", "DataError(PreflowError, OSError)", True),
        ("PreflowError(Exception)", "PreflowError(BaseException)", True),
        ("ModelError(PreflowError)", "ModelError(PreflowError, OSError)", False),
        ('"an error"', '"some error"', False),
    ],
)
def test_what_an_error_is_caught_as_counts_and_no_more(tmp_path: Path, old: str, new: str, missed: bool) -> None:
    before = digest(tmp_path, ERRORS, "preflow.main:run", {"preflow.errors"})
    edited = Edit(ERRORS, "errors.py", old, new).edited()
    assert (digest(tmp_path, edited, "preflow.main:run", {"preflow.errors"}) != before) is missed


USER_TEXT = {
    "observer.py": "class UserText(str): ...\n",
    "main.py": """
        from preflow.observer import UserText
        def run(x, observer):
            if reason := _reason(x):
                observer.note(reason)
            return reason is None
        def _reason(x):
            if x < 1:
                return UserText(f"{x} is below 1")
            return None
    """,
}


def test_the_wording_of_a_text_for_people_does_not_count_and_its_condition_does(tmp_path: Path) -> None:
    def of(old: str, new: str) -> str:
        edited = Edit(USER_TEXT, "main.py", old, new).edited()
        return digest(tmp_path, edited, "preflow.main:run", {"preflow.observer"})

    before = digest(tmp_path, USER_TEXT, "preflow.main:run", {"preflow.observer"})
    assert of("is below 1", "is too small") == before
    assert of("if x < 1", "if x < 2") != before
    assert of('UserText(f"{x} is below 1")', "None") != before


def test_data_beside_a_module_that_is_reached_count(tmp_path: Path) -> None:
    files = {**HELPER, "inner/__init__.py": "", "inner/words.txt": "some", "words.txt": "some", "tables/a.csv": "1"}
    before = digest(tmp_path, files)
    assert digest(tmp_path, {**files, "words.txt": "more"}) != before
    assert digest(tmp_path, {**files, "tables/a.csv": "2"}) != before, "a folder that is no package is the module's"
    assert digest(tmp_path, {**files, "inner/words.txt": "more"}) == before, "no code of that package is reached"
    assert digest(tmp_path, {**files, "py.typed": "partial"}) == before


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"pkg\.main defines no walk"):
        digest(tmp_path, HELPER, "pkg.main:walk")
