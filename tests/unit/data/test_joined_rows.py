"""Rows of a source together: what numbers that name the better of two answers can be trusted to mean."""

from pathlib import Path
from typing import Any

import pytest

from preflow.config.validation import ReadingSettings
from preflow.data.conversion import to_pair
from preflow.data.files.sources import resolve_sources
from preflow.data.joined_rows import joined_chunks
from preflow.errors import DataFileError
from tests.conftest import write_jsonl


def read(folder: Path, ends: str, values: list[float], **beside: Any) -> list[Any]:
    """The rows of a file whose answers are numbered, read as pairs."""
    answers = {f"response_{end}": f"answer {end}" for end in ends}
    file = write_jsonl(folder / "rows.jsonl", [{"prompt": "Hi", **answers, "label": v, **beside} for v in values])
    (source,) = resolve_sources([str(file)])
    chunks = joined_chunks("preferences", source, "rows.jsonl", "train", ReadingSettings())
    return [row for chunk in chunks for row in chunk.read()]


@pytest.mark.parametrize(
    ("ends", "values"), [("12", [0, 1]), ("12", [-1, 1]), ("12", [-3, -2, 1, 2]), ("01", [1, 2]), ("01", [-1, 0, 1])]
)
def test_numbers_that_do_not_tell_the_better_answer_are_one_error(
    tmp_path: Path, ends: str, values: list[float]
) -> None:
    with pytest.raises(DataFileError, match=r"'label' is .* beside response_. and response_., .*name of its answer"):
        read(tmp_path, ends, values)


@pytest.mark.parametrize(
    ("ends", "values", "chosen"), [("12", [1, 2, 0], "12"), ("12", [2, 1.5, 1], "2?1"), ("01", [0, 1], "01")]
)
def test_numbers_that_tell_it_are_read(tmp_path: Path, ends: str, values: list[float], chosen: str) -> None:
    rows = read(tmp_path, ends, values)
    for row, end in zip(rows, chosen, strict=False):
        if end != "?":
            assert to_pair(row).chosen[0].content == f"answer {end}"


def test_numbers_beside_chosen_and_rejected_name_nothing(tmp_path: Path) -> None:
    assert len(read(tmp_path, "12", [0, 1], chosen="a", rejected="b")) == 2
