"""Records of CSV files are rows of text; a bad record is named by line and spoils no other."""

from pathlib import Path

import pytest

from tests.unit.data.files.reading import read, write_csv


def test_csv_numbers_stay_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv")[1].values["prompt"] == "2"


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ";")])
def test_a_table_is_read_by_the_delimiter_that_its_header_has(tmp_path: Path, name: str, mark: str) -> None:
    (tmp_path / name).write_text(f"prompt{mark}completion\nHi, you{mark}Hello\n")
    assert read(tmp_path / name)[0].values == {"prompt": "Hi, you", "completion": "Hello"}


def test_csv_record_with_a_wrong_number_of_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\nc\nd,e,f\n")
    rows = read(tmp_path / "a.csv")
    assert [row.malformed is not None for row in rows] == [False, True, True]
    assert "got 3 fields, expected 2" in str(rows[2].malformed)


def test_a_byte_of_a_table_that_is_no_text_spoils_its_own_record_alone_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,"2\n3"\n\xe9,2\n4,5\n6\n')
    rows = read(tmp_path / "a.csv")
    assert [row.malformed for row in rows] == [
        None,
        "line 4: byte 0xe9 is not UTF-8",
        None,
        "line 6: got 1 fields, expected 2 (a, b)",
    ]
