"""Questions as a CSV file for each reviewer, and its answers: the way without a browser."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from preflow.errors import ReviewError
from preflow.redaction import quoted
from preflow.review.key import OPTIONS, Key, Question

#: The question's random name, what is shown, and what the reviewer fills in.
COLUMNS = ("question", "prompt", "answer_a", "answer_b", "preference", "comment")
#: The header of a sheet: what follows a colon says what may be filled in.
HEADER = tuple(f"{name}: {' / '.join(OPTIONS)}" if name == "preference" else name for name in COLUMNS)
#: Spreadsheets take a cell that begins with one of these for a formula; the last keeps ``protected`` reversible.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
#: Characters of a text that are compared; spreadsheets keep 32,767 of a cell.
_COMPARED = 10_000
_EXPECTED = f"expected the columns {', '.join(COLUMNS)}"
_SHORT = {"a": OPTIONS[0], "b": OPTIONS[1], "both bad": OPTIONS[3]}


def protected(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: it begins with an apostrophe where it would be one."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain(cell: str) -> str:
    """The inverse of ``protected``."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def sheet_file(folder: Path, reviewer: str) -> Path:
    """Where a reviewer's sheet is."""
    return folder / f"{reviewer}.csv"


def write_sheet(file: Path, key: Key, reviewer: str) -> bool:
    """Write a reviewer's questions; one that is there already keeps its answers.

    Returns:
        Whether it was written.

    Raises:
        ReviewError: There is another file of that name.
    """
    if file.exists():
        read_sheet(file, key, reviewer)
        return False
    questions = key.of(reviewer)
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(HEADER)
        for question in questions:
            writer.writerow([*map(protected, (question.id, *_texts(key, question))), "", ""])
        content = text.getvalue()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(content.encode("utf-8-sig", errors="replace"))  # a spreadsheet knows UTF-8 by its mark
    partial.rename(file)
    return True


def read_sheet(file: Path, key: Key, reviewer: str) -> dict[str, tuple[str, str]]:
    """Answer and comment by question, of the questions with an answer; options are not checked here.

    What a spreadsheet makes of a text (numbers, dates) is not looked at, as the key has the texts.

    Raises:
        ReviewError: The file cannot be read, lacks a column, or its rows are not the reviewer's questions.
    """
    rows = _rows(file)
    questions = {question.id: question for question in key.of(reviewer)}
    found: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    shown = [
        set(map(_letters, column)) for column in zip(*(_texts(key, each) for each in key.of(reviewer)), strict=True)
    ]
    for number, row in enumerate(rows, start=2):
        name = plain(row["question"]).strip()
        question = questions.get(name)
        if question is None or name in seen:
            why = "twice" if name in seen else f"not a question of {reviewer} in review {key.number}"
            raise ReviewError(f"{file}, row {number}: {name!r} is {why}. Use the sheet that the review wrote")
        seen.add(name)
        for column, own, others in zip(COLUMNS[1:4], map(_letters, _texts(key, question)), shown, strict=True):
            cell = _letters(plain(row[column]))
            if cell != own and cell in others:
                raise ReviewError(
                    f"{file}, row {number}: {column} is another question's, so columns were sorted against each other. "
                    "Sort whole rows, or use the sheet that the review wrote"
                )
        answer = _option(plain(row["preference"]))
        if answer:
            found[name] = (answer, plain(row["comment"]).strip())
    return found


def _texts(key: Key, question: Question) -> tuple[str, str, str]:
    turns = key.pair_of(question).turns
    prompt = turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    return (prompt, *key.shown(question))


def _letters(text: str) -> str:
    """A text as far as spreadsheets keep it: white space and what is beyond their longest cell is theirs."""
    return "".join(text.split())[:_COMPARED]


def _option(text: str) -> str:
    """One of the options whatever its case, or in short; other texts as they are."""
    answer = " ".join(text.split()).casefold()
    return next((option for option in OPTIONS if option.casefold() == answer), _SHORT.get(answer, text.strip()))


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
        csv.field_size_limit(max(len(text), csv.field_size_limit()))
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)  # spreadsheets of some countries write semicolons
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReviewError(f"{file} cannot be read: {error}. Save it as CSV in UTF-8") from None
    return _named(file, table)


def _named(file: Path, table: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Rows by the names of their columns; a text under any other header is refused, as it may be an answer.

    Raises:
        ReviewError: A column is missing or there twice, or a column of another name is not empty.
    """
    head = table[0] if table else []
    names = [_column(cell) for cell in head]
    for name in COLUMNS:
        there = [f"column {place} ({quoted(head[place - 1])})" for place, each in enumerate(names, 1) if each == name]
        if len(there) != 1:
            others = ", ".join(cell for cell, each in zip(head, names, strict=True) if each is None)
            missing = f"has no column {name}, but {quoted(others)}" if others else f"has no column {name}"
            wrong = f"{name} is twice, in {' and '.join(there)}" if there else missing
            raise ReviewError(
                f"{file}, row 1: {wrong}; {_EXPECTED}. Name the columns so, or use the sheet that the review wrote"
            )
    for number, row in enumerate(table[1:], start=2):
        for place, cell in enumerate(row):
            if cell.strip() and (place >= len(names) or names[place] is None):
                header = (
                    f"the header {quoted(head[place])}" if "".join(head[place : place + 1]).strip() else "no header"
                )
                raise ReviewError(
                    f"{file}, row {number}, column {place + 1}: {quoted(cell)} is under {header}; {_EXPECTED} and "
                    "no other with a text. Move answers to preference and remarks to comment, and delete the column"
                )
    places = {name: names.index(name) for name in COLUMNS}
    return [
        {name: row[place] if place < len(row) else "" for name, place in places.items()}
        for row in table[1:]
        if any(row)
    ]


def _column(cell: str) -> str | None:
    """The column that a header can only mean, whatever its case, signs and explanation; none where it is another."""
    letters = "".join(filter(str.isalnum, re.split(r"[:(]", cell)[0].casefold()))
    known = {name.replace("_", ""): name for name in COLUMNS}
    return known.get(letters) or known.get(letters.removesuffix("s"))
