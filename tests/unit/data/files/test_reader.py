"""Every format gives the same rows; every broken one gives one clear error or a named row."""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preflow.data.files.raw_rows import RawRow
from preflow.errors import DataFileError
from tests.unit.data.files.reading import ROWS, jsonl, read, write_csv


def write_zstd(path: Path) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(jsonl(ROWS))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(jsonl(ROWS)),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS)),
    "crlf.jsonl": lambda path: path.write_bytes(jsonl(ROWS, "\r\n")),
    "no_last_newline.ndjson": lambda path: path.write_bytes(jsonl(ROWS).rstrip()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS))),
    "a.jsonl.zst": write_zstd,
    "array.json": lambda path: path.write_text("\n " + json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: path.write_bytes(jsonl(ROWS)),
    "a.JSON.GZ": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.csv": write_csv,
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == [RawRow(name, 1, ROWS[0]), RawRow(name, 2, ROWS[1])]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "truncated gzip": ("a.jsonl.gz", gzip.compress(os.urandom(5000))[:2000], r"a\.jsonl\.gz cannot be read"),
    "not gzip": ("a.jsonl.gz", b'{"a": 1}\n', "cannot be read"),
    "Parquet by another name": ("a.jsonl", b"PAR1....", "is a Parquet file"),
    "gzip by another name": ("a.csv", gzip.compress(b"a,b"), "is gzip-compressed"),
    "UTF-16": ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16"),
    "not Parquet": ("a.parquet", b"a,b\n1,2\n", "cannot be read"),
    "empty Parquet": ("a.parquet", b"", "cannot be read"),
    "open array": ("a.json", b'[{"a": 1},\n', "not valid JSON.*line 2"),
    "open quotes": ("a.csv", b'a,b\n1,2\n"3,4\n', "after row 1: the record that begins in line 3"),
    "same column twice": ("a.csv", b"a,a\n1,2\n", "names a column twice"),
    "Latin-1 header": ("a.csv", b"a,\xe9\n1,2\n", "line 1, the header: byte 0xe9 is not UTF-8"),
    "end cut off": (
        "a.jsonl.gz",
        gzip.compress(random.Random(0).randbytes(2000).hex(" ", 40).replace(" ", "\n").encode())[:-300],
        "after line ",
    ),
    "a name that is no UTF-8": ("caf\udce9.jsonl", b"{}\n", "caf.udce9.jsonl: its name is not UTF-8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_clear_error_that_names_it(tmp_path: Path, case: str) -> None:
    name, content, reason = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=reason) as error:
        read(tmp_path / name)
    assert name.encode("utf-8", "backslashreplace").decode() in str(error.value)
