"""Files that would take memory or time without end are one clear error, or one row of its own."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preflow.data.files.chunks import chunks
from preflow.data.files.parquet import _rows_at_once
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources, unchanged
from preflow.data.files.text_files import longest
from preflow.errors import DataFileError

MIB = 1 << 20
MEMORY = 16 * MIB
ROW = {"prompt": "a", "completion": "b"}


def source(path: Path) -> DataSource:
    return DataSource(path=str(path), digest="")


def test_a_line_may_take_an_eighth_of_the_memory_and_four_mebibytes_in_any_case() -> None:
    assert longest(1024 * MIB) == 128 * MIB
    assert longest(MEMORY) == 4 * MIB


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_line_longer_than_the_memory_allows_is_a_malformed_row_among_good_ones(tmp_path: Path, name: str) -> None:
    text = "\n".join([json.dumps(ROW), json.dumps({"prompt": "a" * (5 * MIB)}), "", json.dumps(ROW), ""]).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    for rows in (
        list(read_rows(source(tmp_path / name), memory=MEMORY)),
        [row for chunk in chunks(source(tmp_path / name), name, "train", MEMORY) for row in chunk.read()],
    ):
        assert [row.row for row in rows] == [1, 2, 4]
        assert [row.values for row in (rows[0], rows[2])] == [ROW, ROW]
        assert rows[1].malformed is not None
        assert f"the line has {5 * MIB + 15:,} bytes" in rows[1].malformed
        assert len(rows[1].values["line"]) < 100
    assert [row.malformed for row in read_rows(source(tmp_path / name))] == [None] * 3


@pytest.mark.slow
def test_a_small_file_that_unpacks_to_more_than_the_memory_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress((json.dumps(ROW) + "\n").encode() * (MEMORY // 30)))
    assert file.stat().st_size * 200 < MEMORY
    with pytest.raises(DataFileError, match=r"unpacks to more than 200 times its .* more than 16 MiB"):
        list(read_rows(source(file), memory=MEMORY))
    assert next(read_rows(source(file))).values == ROW


@pytest.mark.slow
def test_a_large_value_of_every_row_of_a_parquet_file_is_copied_for_few_rows_at_a_time(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a" * 65_536] * 4096}), file, compression="zstd")
    with pq.ParquetFile(file) as table:
        rows = _rows_at_once(file, table, MEMORY)
    assert rows * 65_536 <= MEMORY // 8
    assert sum(1 for _ in read_rows(source(file), memory=MEMORY)) == 4096


def test_a_parquet_file_that_unpacks_to_more_than_the_memory_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a" * (20 * MIB)]}), file, compression="zstd", use_dictionary=False)
    with pytest.raises(DataFileError, match="row group 0 unpacks"):
        list(read_rows(source(file), memory=MEMORY))


def test_an_array_element_and_a_csv_line_that_are_too_long_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([ROW, {"prompt": "a" * (5 * MIB)}]))
    with pytest.raises(DataFileError, match=r"row 2 is longer than the 4,194,304 characters"):
        list(read_rows(source(tmp_path / "rows.json"), memory=MEMORY))
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b\n" + "a" * (5 * MIB) + ",b\n")
    with pytest.raises(DataFileError, match=r"line 3 has more than 4,194,304 characters"):
        list(read_rows(source(tmp_path / "rows.csv"), memory=MEMORY))


def test_a_number_of_thousands_of_digits_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"prompt": "a"},\n {"prompt": ' + "1" * 5000 + "}]")
    with pytest.raises(DataFileError, match=r"4300 digits.*line 2.*after row 1"):
        list(read_rows(source(tmp_path / "rows.json")))


def test_an_object_with_thousands_of_keys_is_read_and_a_repeated_one_named(tmp_path: Path) -> None:
    keys = ", ".join(f'"k{number}": 1' for number in range(50_000))
    (tmp_path / "rows.jsonl").write_text(f'{{{keys}}}\n{{{keys}, "k7": 2}}\n')
    good, repeated = read_rows(source(tmp_path / "rows.jsonl"))
    assert len(good.values) == 50_000
    assert repeated.malformed == "the key 'k7' is given twice"


def test_pipes_devices_and_links_without_an_end_are_refused_before_they_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for name, why in (("pipe", "a named pipe"), ("zero", "a device"), ("loop", "symbolic links")):
        with pytest.raises(DataFileError, match=why):
            resolve_sources([str(tmp_path / f"{name}.jsonl")])


def test_links_out_of_a_folder_are_refused_unless_the_environment_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.json").write_text('[{"prompt": "a", "completion": "b"}]')
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (folder / "inside.jsonl").symlink_to(folder / "rows.jsonl")
    assert len(resolve_sources([str(folder)])) == 2
    (folder / "z.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(DataFileError, match=r"z\.json is a link out of its folder"):
        resolve_sources([str(folder)])
    monkeypatch.setenv("PREFLOW_FOLLOW_LINKS", "1")
    assert len(resolve_sources([str(folder)])) == 3


def test_a_snapshot_of_the_hubs_cache_consists_of_links_to_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--me--pairs" / "snapshots" / "abc"
    (tmp_path / "datasets--me--pairs" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--me--pairs" / "blobs" / "123").write_text(json.dumps(ROW) + "\n")
    (snapshot / "rows.jsonl").symlink_to("../../blobs/123")
    with pytest.raises(DataFileError, match="no known data format"):
        resolve_sources([str(snapshot / "../../blobs/123")])
    assert len(resolve_sources([str(snapshot)])) == 1


def test_data_outside_the_folders_that_the_environment_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    monkeypatch.setenv("PREFLOW_DATA_ROOTS", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    (tmp_path / "a" / "link.jsonl").symlink_to(tmp_path / "c" / "rows.jsonl")
    assert len(resolve_sources([str(tmp_path / folder / "rows.jsonl") for folder in ("a", "b")])) == 2
    for name in ("c/rows.jsonl", "a/link.jsonl", "a/../c/rows.jsonl"):
        with pytest.raises(DataFileError, match="is in no folder of PREFLOW_DATA_ROOTS"):
            resolve_sources([str(tmp_path / name)])


def test_a_file_that_was_changed_since_its_digest_was_taken_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    sources = resolve_sources([str(file)])
    with unchanged(sources):
        pass
    times = file.stat()

    def write_again() -> None:
        file.write_text(json.dumps(ROW) + "\n")  # the same: another process wrote while it was read
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(DataFileError, match="is not what it was"), unchanged(sources):
        write_again()
    file.write_text("{}\n")
    with pytest.raises(DataFileError, match="is not what it was"), unchanged(sources):
        pass
