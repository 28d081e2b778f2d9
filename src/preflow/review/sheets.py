"""Questions as a CSV file for each reviewer, and its answers: the way without a browser."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from preflow.errors import ReviewError
from preflow.review.key import OPTIONS, Key, Question

#: The question's random name, what is shown, and what the reviewer fills in.
COLUMNS = ("question", "prompt", "answer_a", "answer_b", "preference", "comment")
#: Spreadsheets take a cell that begins with one of these for a formula; the last keeps ``protected`` reversible.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
#: Characters of a text that are compared; spreadsheets keep 32,767 of a cell.
_COMPARED = 10_000
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
        writer.writerow([*COLUMNS[:4], f"preference: {' / '.join(OPTIONS)}", COLUMNS[5]])
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
    names = [cell.partition(":")[0].strip().casefold() for cell in table[0]] if table else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ReviewError(f"{file} has no column {missing[0]}: expected {', '.join(COLUMNS)}")
    places = {name: names.index(name) for name in COLUMNS}
    return [
        {name: row[place] if place < len(row) else "" for name, place in places.items()}
        for row in table[1:]
        if any(row)
    ]
