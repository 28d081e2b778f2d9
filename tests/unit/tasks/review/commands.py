"""``preflow review`` as tests of reviews call it, and sheets that are filled in by script."""

from pathlib import Path

from typer.testing import CliRunner

from flows.commands.app import make_app
from preflow.review.key import Key, keys_in
from tasks.review import reviews_folder
from tests.unit.review.test_sheets import cells, save

#: The recipe of the run that tests share.
NAME = "mine-42"


def preflow(*arguments: str) -> tuple[int, str]:
    """Exit code and output of ``preflow review``."""
    done = CliRunner().invoke(make_app(), ["review", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def newest() -> Key:
    return keys_in(reviews_folder(NAME))[-1]


def fill(file: Path, answers: dict[str, str]) -> None:
    head, *rows = cells(file)
    save(file, [head, *([*row[:4], answers[row[0]], ""] for row in rows)])
