"""The word check fails on private words, wherever they are written, and on nothing else."""

from pathlib import Path

import pytest

from docs.tools.words import ROOT, files, main, private_words, uses

WORDS = private_words()


def found(tmp_path: Path, text: str, name: str = "module.py") -> list[tuple[int, str]]:
    """Line and wording of each private word in a file."""
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return [(use.line, use.found) for use in uses(file, WORDS)]


def test_the_glossary_has_at_least_25_private_words_and_a_term_for_each() -> None:
    assert len(WORDS) >= 25
    assert all(word.use for word in WORDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""What is foreseen."""\n', [(1, "foreseen")]),
        ("value = 1\nother = 2  # memory runs out here\n", [(2, "memory runs out")]),
        ('raise ValueError("one row is set "\n    "aside")\n', [(1, "set aside")]),
        ("# it is nobody's\nforesight = 1\n", [(1, "nobody"), (2, "foresight")]),
        ("def pairs_per_look() -> None: ...\n", [(1, "pairs_per_look")]),
        ("class DriftGuard: ...\n", [(1, "DriftGuard")]),
        ('text = f"{count} rows in which numbers"\n', [(1, "in which numbers")]),
        ('"""A docstring\n\nover lines: memory\n    ends here."""\n', [(3, "memory ends")]),
    ],
    ids=["docstring", "comment", "joined strings", "name", "split name", "camel case", "f-string", "line break"],
)
def test_a_private_word_is_found_with_its_line(tmp_path: Path, text: str, expected: list[tuple[int, str]]) -> None:
    assert found(tmp_path, text) == expected


@pytest.mark.parametrize("name", ["page.md", "recipe.yaml", "compose.yml"])
def test_documents_and_settings_are_read_too(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, "# One\n# A row is set aside.\n", name) == [(2, "set aside")]


@pytest.mark.parametrize(
    "text",
    [
        'print("set", "aside")\n',
        '"""Pairs that look alike; it looks for a file."""\n',
        '"""A credit card number, a model card, data drift."""\n',
        '"""The process runs out of memory."""\n',
        '"""They are told apart; a stand-in; stands for."""\n',
        '"""Some rows are held out of training; a larger share holds out more."""\n',
        "outlook = lookup = 1\n",
    ],
)
def test_the_usual_sense_of_a_word_passes(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    "text",
    [
        'WORDS = "none nobody nothing"  # glossary: allow nobody\n',
        "# glossary: allow nobody\nnobody = 1\n",
        'TEXT = """none\nnobody"""  # glossary: allow nobody\n',
        "nobody = 1\n\n\n# glossary: allow-file nobody\n",
    ],
    ids=["its line", "line above", "end of the string", "file"],
)
def test_a_justified_use_is_allowed_where_it_is_written(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_names_that_recipes_have_pass_and_words_around_them_do_not(tmp_path: Path) -> None:
    text = '"""``maximum_set_aside`` of a recipe."""\nseverity = "set_aside"\nrows_set_aside = 1  # set aside\n'

    assert found(tmp_path, text) == [(3, "rows_set_aside"), (3, "set aside")]


def test_an_allowance_holds_for_its_word_and_its_place_alone(tmp_path: Path) -> None:
    text = "nobody = 1  # glossary: allow drift\n\nnobody = 2\nnobody = 3  # glossary: allow nobody\n\n\nnobody = 4\n"
    assert found(tmp_path, text) == [(1, "nobody"), (3, "nobody"), (7, "nobody")]


def test_the_program_prints_place_word_and_term_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("Fine.\n\nMemory ends.\n", "utf-8")

    assert main([str(tmp_path)]) == 1

    assert f"{tmp_path}/page.md:3: 'Memory ends': write out of memory (OOM)" in capsys.readouterr().out
    (tmp_path / "page.md").write_text("Fine.\n", "utf-8")
    assert main([str(tmp_path)]) == 0


@pytest.mark.slow
def test_data_and_hidden_folders_are_not_read() -> None:
    read = {file.relative_to(ROOT).as_posix() for file in files([ROOT])}

    assert {"README.md", "recipes/demo.yaml", "src/preflow/errors.py", "tests/unit/docs/test_words.py"} <= read
    assert not [name for name in read if name.startswith((".venv", ".git/", "recipes/demo/content", "build"))]


# The words that these tests are about.
# glossary: allow-file nobody, foreseen, memory runs out, set aside, look, drift, in which numbers
