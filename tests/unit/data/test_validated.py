"""Rows come back from the validate folder as they were written."""

from pathlib import Path

from preflow.artifacts import Artifact
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.validated import QuarantinedRow, load_demonstrations, load_pairs, rows_file, write_rows

ANSWER = (Message("assistant", "line\u2028separator, \r\n é 😀"),)


def test_rows_survive_the_folder(tmp_path: Path) -> None:
    shown = Demonstration((Message("user", "a"), *ANSWER), Source("d.jsonl", 3), context=1)
    pair = Pair((Message("user", "a"),), ANSWER, (Message("assistant", "no"),), Source("p.csv", 9))
    write_rows(tmp_path / rows_file("demonstrations", "train"), [shown, shown])
    write_rows(tmp_path / rows_file("preferences", "eval"), [pair])
    artifact = Artifact(path=str(tmp_path), digest="", bytes=0)
    assert load_demonstrations(artifact, "train") == [shown, shown]
    assert load_pairs(artifact, "eval") == [pair]


def test_a_row_quarantined_for_its_encoding_reads_back_as_it_was(tmp_path: Path) -> None:
    values = {"prompt": "half a pair: \ud83d, and é", "completion": "x"}
    write_rows(tmp_path / "q.jsonl", [QuarantinedRow("demonstrations", Source("d", 1), "bad_encoding", "...", values)])
    (row,) = read_rows(resolve_sources([str(tmp_path / "q.jsonl")])[0])
    assert row.values["values"] == values
