"""Every kind of file gives the same rows; every broken one gives one clear error or a named row."""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preflow.data.files.reader import RawRow, read_rows
from preflow.data.files.sources import DataSource, is_hub, resolve_sources, source_names
from preflow.errors import DataFileError

ROWS = [{"prompt": "Hi, you?", "completion": 'He said "é"\nand left.'}, {"prompt": "2", "completion": "zwei"}]


def read(path: Path) -> list[RawRow]:
    (source,) = resolve_sources([str(path)])
    return list(read_rows(source))


def jsonl(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write_csv(path: Path) -> None:
    path.write_text('prompt,completion\n"Hi, you?","He said ""é""\nand left."\n2,zwei\n', encoding="utf-8")


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
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == [RawRow(name, 1, ROWS[0]), RawRow(name, 2, ROWS[1])]


def test_csv_numbers_stay_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv")[1].values["prompt"] == "2"


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


def test_csv_record_with_a_wrong_number_of_fields_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\nc\nd,e,f\n")
    rows = read(tmp_path / "a.csv")
    assert [row.malformed is not None for row in rows] == [False, True, True]
    assert "got 3 fields, expected 2" in str(rows[2].malformed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "truncated gzip": ("a.jsonl.gz", gzip.compress(os.urandom(5000))[:2000], r"a\.jsonl\.gz cannot be read"),
    "not gzip": ("a.jsonl.gz", b'{"a": 1}\n', "cannot be read"),
    "Parquet by another name": ("a.jsonl", b"PAR1....", "is a Parquet file"),
    "gzip by another name": ("a.csv", gzip.compress(b"a,b"), "is gzip-packed"),
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


def test_a_byte_of_a_table_that_is_no_text_spoils_its_own_record_alone_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,"2\n3"\n\xe9,2\n4,5\n6\n')
    rows = read(tmp_path / "a.csv")
    assert [row.malformed for row in rows] == [
        None,
        "line 4: byte 0xe9 is not UTF-8",
        None,
        "line 6: got 1 fields, expected 2 (a, b)",
    ]


def test_unused_times_that_python_cannot_hold_do_not_refuse_a_parquet_file(tmp_path: Path) -> None:
    times = {
        "day": pa.array([2**31 - 1], pa.date32()),
        "stamp": pa.array([2**62], pa.timestamp("us")),
        "span": pa.array([2**61], pa.duration("ms")),
        "far": pa.array([0], pa.timestamp("s", tz="Mars/Phobos")),
        "fine": pa.array(["text"]),
    }
    pq.write_table(pa.table(times), tmp_path / "a.parquet")
    (row,) = read(tmp_path / "a.parquet")
    assert row.values == {"day": 2**31 - 1, "stamp": 2**62, "span": 2**61, "far": 0, "fine": "text"}
    pq.write_table(pa.table({"inside": pa.array([[2**62]], pa.list_(pa.timestamp("us")))}), tmp_path / "b.parquet")
    with pytest.raises(DataFileError, match=r"b\.parquet cannot be read"):
        read(tmp_path / "b.parquet")


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(DataFileError, match=r"No such file.*pairs\.jsonl"):
        resolve_sources([str(tmp_path / "pair.jsonl")])


def test_an_unknown_kind_of_file_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataFileError, match=r"'\.txt'.*\.jsonl"):
        resolve_sources([str(tmp_path / "a.txt")])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch(mode=0)
    with pytest.raises(DataFileError, match="Permission denied"):
        resolve_sources([str(tmp_path / "a.jsonl")])


def test_a_folder_gives_its_data_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", "README.md", ".hidden.jsonl", "sub/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [Path(source.path).name for source in resolve_sources([str(tmp_path)])] == ["a.csv", "b.jsonl", "c.json"]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds no data file"):
        resolve_sources([str(tmp_path)])


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", "x"), ("b.jsonl", "x"), ("c.jsonl", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (source.digest for source in resolve_sources([str(tmp_path)]))
    assert a == b != c


def test_names_are_short_unique_and_tell_nothing_of_the_place() -> None:
    paths = ["/x/one/a.jsonl", "/x/two/a.jsonl", "/x/b.csv", "/x/b.csv", "owner/set:train@abc"]
    sources = [DataSource(path=path, digest="") for path in paths]
    assert source_names(sources) == ["one/a.jsonl", "two/a.jsonl", "b.csv", "b.csv (2)", "owner/set:train"]


@pytest.mark.parametrize(
    ("entry", "path", "digest"),
    [
        ("owner/set:test", "owner/set:test@abc123", "abc123:test"),
        ("owner/set", "owner/set:train@abc123", "abc123:train"),
        ("owner/set:main:test", "owner/set:main:test@abc123", "abc123:main:test"),
    ],
)
def test_a_hub_name_is_pinned_to_its_commit(
    monkeypatch: pytest.MonkeyPatch, entry: str, path: str, digest: str
) -> None:
    import huggingface_hub

    class Info:
        sha = "abc123"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: Info())
    (source,) = resolve_sources([entry])
    assert source == DataSource(path=path, digest=digest)
    assert is_hub(source.path)


def test_a_hub_name_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(self: object, name: str, timeout: float) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(DataFileError, match=r"'owner/set' is no file here.*no route"):
        resolve_sources(["owner/set"])


def test_hub_rows_are_read_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, split: str, revision: str) -> list[dict[str, Any]]:
        asked.append((name, config, split, revision))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(read_rows(DataSource(path="owner/set:train@abc", digest="")))
    assert asked == [("owner/set", None, "train", "abc")]
    assert rows[1] == RawRow("owner/set:train", 2, ROWS[1])
    list(read_rows(DataSource(path="owner/set:main:test@abc", digest="")))
    assert asked[1] == ("owner/set", "main", "test", "abc")
