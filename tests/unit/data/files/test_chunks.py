"""Chunks of a file, read one by one: all its rows, each under its own number."""

import gzip
from pathlib import Path

import pytest

from preflow.data.files import chunks as chunks_module
from preflow.data.files.chunks import chunks
from preflow.data.files.raw_rows import DataSource

LINES = ['{"prompt": "a"}', "", '{"prompt": "b"}', '{"prompt": "c"}', "not JSON", '{"prompt": "d"}']


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_rows_are_numbered_through_all_chunks_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str
) -> None:
    text = ("\n".join(LINES) + ending).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES", 20)
    found = list(chunks(DataSource(path=str(tmp_path / name), digest="d"), name, "train"))
    assert len(found) > 2
    rows = [row for chunk in found for row in chunk.read()]
    assert [(row.row, row.values.get("prompt")) for row in rows] == [(1, "a"), (3, "b"), (4, "c"), (5, None), (6, "d")]
    assert [row.row for row in rows if row.malformed] == [5]


def test_rows_of_other_formats_fill_chunks_and_the_last_one_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("prompt\n" + "".join(f"{number}\n" for number in range(5)))
    monkeypatch.setattr(chunks_module, "_ROWS", 2)
    found = list(chunks(DataSource(path=str(tmp_path / "rows.csv"), digest="d"), "rows.csv", "train"))
    assert [[row.row for row in chunk.read()] for chunk in found] == [[1, 2], [3, 4], [5]]
