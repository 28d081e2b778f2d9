"""A line of a JSONL file is a row or a malformed row with its number."""

from pathlib import Path

from tests.unit.data.files.reading import read


def test_jsonl_rows_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": NaN}\n{"a": \n[1]\n\xff\n{"a": 2}\n')
    rows = read(path)
    assert [row.row for row in rows] == [1, 3, 4, 5, 6, 7], "line 2 is empty"
    assert rows[1].values == {"a": None}
    problems = {row.row: row.malformed for row in rows if row.malformed}
    assert problems.keys() == {4, 5, 6}
    assert "Expecting value" in str(problems[4])
    assert problems[5] == "expected an object {...}, got an array"
    assert "can't decode byte 0xff" in str(problems[6])


def test_a_deeply_nested_line_is_malformed_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n" + '{"a": 1}\n')
    first, second = read(tmp_path / "a.jsonl")
    assert first.malformed == "nested too deeply"
    assert second.values == {"a": 1}
