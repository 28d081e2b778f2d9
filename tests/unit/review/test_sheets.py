"""Sheets: what a spreadsheet may do to them, and what it may not."""

import csv
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from preflow.errors import ReviewError
from preflow.review.key import Key, ReviewPair
from preflow.review.sheets import COLUMNS, HEADER, plain, protected, read_sheet, write_sheet
from tests.unit.review.keys import make_key, pair

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "'quoted'")


def key_of(*answers: str) -> Key:
    pairs = [pair(number).model_copy(update={"new": text}) for number, text in enumerate(answers)]
    return make_key(len(pairs), ("anna",), 0, pairs=tuple(pairs))


def cells(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.reader(handle))


def save(file: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8-sig") -> None:
    with file.open("w", encoding=encoding, newline="") as handle:
        csv.writer(handle, delimiter=delimiter).writerows(rows)


@drawn(st.text() | st.sampled_from(FORMULAS))
def test_a_protected_cell_is_no_formula_and_comes_back(text: str) -> None:
    assert not protected(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain(protected(text)) == text


def test_no_cell_of_a_sheet_is_a_formula_and_nothing_tells_the_models(tmp_path: Path) -> None:
    key = key_of(*FORMULAS)
    assert write_sheet(tmp_path / "anna.csv", key, "anna")
    rows = cells(tmp_path / "anna.csv")
    assert [cell.partition(":")[0] for cell in rows[0]] == list(COLUMNS)
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    text = (tmp_path / "anna.csv").read_text("utf-8-sig")
    assert not [word for word in ("dpo", "sft", "mine", "r" * 32, "repeat", "gold") if word in text]
    shown = {plain(cell) for row in rows[1:] for cell in row[2:4]}
    assert shown >= set(FORMULAS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_answers_come_back_from_other_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    """Rows in another order, other separators, line ends and numbers of their own, options in short or other case."""
    key, file = key_of("3-4", "a\nb", "x" * 20_000, "TRUE"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    head, *rows = cells(file)
    for row, answer in zip(rows, ("a is BETTER", "b", " tie ", "Both are bad", ""), strict=True):
        row[4] = answer
        row[2:4] = [cell.replace("\n", "\r\n").replace("3-4", "04. Mar")[:15_000] for cell in row[2:4]]
    rows[0][5] = "'=why"
    asked = [question.id for question in key.of("anna")]
    expected = dict(
        zip(asked, [("A is better", "=why"), ("B is better", ""), ("Tie", ""), ("Both are bad", "")], strict=False)
    )
    save(file, [head, *reversed(rows), [""] * 6], delimiter)
    assert read_sheet(file, key, "anna") == expected


def test_an_answer_outside_the_options_is_read_as_it_is(tmp_path: Path) -> None:
    key, file = key_of("a", "b"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    rows = cells(file)
    rows[1][4] = "purple"
    save(file, rows)
    assert read_sheet(file, key, "anna") == {key.of("anna")[0].id: ("purple", "")}


def test_a_sheet_that_is_there_keeps_its_answers(tmp_path: Path) -> None:
    key, file = key_of("a", "b"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    rows = cells(file)
    rows[1][4] = "Tie"
    save(file, rows)
    before = file.read_bytes()
    assert not write_sheet(file, key, "anna")
    assert file.read_bytes() == before


def test_what_is_not_the_sheet_is_refused_with_its_place(tmp_path: Path) -> None:
    key, file = key_of("a", "b", "c"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    head, *rows = cells(file)
    moved = [[row[0], *other[1:4], *row[4:]] for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
    broken = {
        "another question's, so columns were sorted": [head, *moved],
        "row 5: .* is twice": [head, *rows[:3], rows[0]],
        "not a question of anna in review 1": [head, ["ffff", *rows[0][1:]]],
        "anna.csv, row 1: has no column preference, but mark; expected the columns question, ": [
            [*head[:4], "mark", head[5]],
            *rows,
        ],
    }
    for message, table in broken.items():
        save(file, table)
        with pytest.raises(ReviewError, match=message):
            read_sheet(file, key, "anna")
    file.write_bytes("question,prompt\n\xe4".encode("latin-1"))
    with pytest.raises(ReviewError, match="Save it as CSV in UTF-8"):
        read_sheet(file, key, "anna")
    both = make_key(3, gold=0)
    file.unlink()
    write_sheet(file, both, "anna")
    with pytest.raises(ReviewError, match="not a question of ben"):
        read_sheet(file, both, "ben")


@pytest.mark.parametrize(
    "header", ["preference", " Preference ", "PREFERENCES", "preference (A or B)", "Preference: which is better?"]
)
def test_a_shortened_header_means_the_same(tmp_path: Path, header: str) -> None:
    key, file = key_of("a"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    head, row, *others = cells(file)
    renamed = [*head[:2], "Answer A", "answer-b", header, "Comments"]
    save(file, [renamed, [*row[:4], "B", "kinder"], *others])
    assert read_sheet(file, key, "anna") == {row[0]: ("B is better", "kinder")}


def test_an_answer_in_a_column_of_the_reviewers_own_is_refused_with_its_place(tmp_path: Path) -> None:
    """An added column, a second one of the same name, and a cell beside the table; an empty one holds no answer."""
    key, file = key_of("a", "b"), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    head, *rows = cells(file)
    mine = [[*row, "A is better" if place else ""] for place, row in enumerate(rows)]
    broken = {
        "row 3, column 7: A is better is under the header my choice;": [
            [*head, "my choice"],
            *mine,
        ],
        "row 3, column 7: A is better is under no header": [head, *mine],
        r"row 1: preference is twice, in column 5 \(preference: .*\) and column 7 \(Preference\)": [
            [*head, "Preference"],
            *mine,
        ],
    }
    for message, table in broken.items():
        save(file, table)
        with pytest.raises(ReviewError, match=f"anna.csv, {message}.*expected the columns question, prompt"):
            read_sheet(file, key, "anna")
    save(file, [[*head, "my choice"], *([*row, " "] for row in rows)])
    assert read_sheet(file, key, "anna") == {}


def test_the_page_shows_the_header_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "review.md").read_text("utf-8")
    assert f"`{HEADER[4]}`" in page


def test_a_long_prompt_fits(tmp_path: Path) -> None:
    long = ReviewPair(**{**pair(0).model_dump(), "prompt": ({"role": "user", "content": "why? " * 60_000},)})
    key, file = make_key(1, ("anna",), 0, pairs=(long,)), tmp_path / "anna.csv"
    write_sheet(file, key, "anna")
    assert read_sheet(file, key, "anna") == {}
