"""A JSON file that is one array gives the rows, and the complaints, that reading it whole would give."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflow.data.files import json_array
from preflow.data.files.json_array import elements
from preflow.data.files.jsonl import parse_json
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataFileError

DECODER = json.JSONDecoder()
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


def read(content: bytes) -> list[Any]:
    return list(elements(io.BytesIO(content), DECODER))


@pytest.mark.slow
@given(st.lists(VALUE, max_size=5), st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 9))
def test_whatever_is_cut_where_the_elements_are_those_of_the_whole(
    values: list[Any], indent: int | None, ascii_only: bool, size: int
) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_READ", size)  # every element is cut in many places
        assert read(content) == values


@given(st.text(alphabet='[]{}",:1e.-\\u aé\n', max_size=24), st.integers(1, 9))
def test_what_json_refuses_is_refused_and_nothing_else(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_READ", size)
        try:
            expected = json.loads(text)
        except ValueError:
            expected = None
        if isinstance(expected, list):
            assert read(text.encode()) == expected
        else:
            with pytest.raises(ValueError, match="line"):
                read(text.encode())


BROKEN = {
    "a comma missing": ('[{"a": 1}\n,{"a": 2}\n {"a": 3}]', "Expecting ',' or ']': line 3 column 2, after row 2"),
    "a value missing": ('[{"a": 1},\n{"a": }]', "Expecting value: line 2 column 7, after row 1"),
    "a comma too many": ('[{"a": 1},\n]', "Expecting value: line 2 column 1, after row 1"),
    "no end": ('[{"a": 1}', "Expecting ',' or ']' before the end of the file: line 1 column 10, after row 1"),
    "more behind the end": ('[{"a": 1}] [', "Extra data: line 1 column 12, after row 1"),
    "an open string": ('[\n{"a": "b', "Unterminated string starting at: line 2 column 7"),
    "nested without end": ("[" + "[" * 100_000, "nested too deeply: line 1 column 2"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_complaint_names_line_column_and_the_last_good_row(tmp_path: Path, case: str) -> None:
    text, complaint = BROKEN[case]
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataFileError) as caught:
        list(read_rows(resolve_sources([str(tmp_path / "a.json")])[0]))
    assert caught.value.message == f"{tmp_path / 'a.json'} is not valid JSON: {complaint}"


def test_a_byte_that_is_no_utf8_is_named_by_its_place_in_the_file() -> None:
    content = b'["' + b"a" * (3 << 20) + b'",\n"caf\xe9"]'
    place = len(content) - 2
    with pytest.raises(ValueError, match=f"^byte {place} of the file, 0xe9, is not UTF-8"):
        read(content)


def test_rows_keep_what_the_careful_parser_sees(tmp_path: Path) -> None:
    text = '[{"a": NaN}, {"a": "\\ud800"}, {"a": 1, "a": 2}, 12.5, {"a": "é"}]'
    (tmp_path / "a.json").write_text("\ufeff\n" + text, encoding="utf-8")
    rows = list(read_rows(resolve_sources([str(tmp_path / "a.json")])[0]))
    assert [row.row for row in rows] == [1, 2, 3, 4, 5]
    assert [row.values for row in (rows[0], rows[1], rows[4])] == [{"a": None}, {"a": "\ud800"}, {"a": "é"}]
    assert rows[2].malformed == "the key 'a' is given twice"
    assert rows[3].malformed == "expected an object {...}, got a number"
    assert parse_json(text)[1] == rows[1].values


def test_an_error_early_in_a_long_file_is_reported_without_reading_the_rest() -> None:
    stream = io.BytesIO(b'[{"a": 1}, {"a" 2},' + b" " * (64 << 20) + b"]")
    with pytest.raises(ValueError, match="line 1 column 17, after row 1"):
        list(elements(stream, DECODER))
    assert stream.tell() < 8 << 20


@pytest.mark.slow
def test_a_long_array_takes_little_memory() -> None:
    row = json.dumps({"prompt": "a" * 1000})
    content = ("[" + ",\n".join([row] * 40_000) + "]").encode()
    tracemalloc.start()
    count = sum(1 for _ in elements(io.BytesIO(content), DECODER))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert peak < len(content) / 4
