"""Tables as other programs write them: TSV, JSON in every orientation, Arrow, saved data sets."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from preflow.config.validation import Dataset as Named
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataFileError
from tests.unit.data.files.reading import read

ROWS = [{"prompt": "Hi", "completion": "Hel\tlo"}, {"prompt": "Ho", "completion": '"What?"'}]


@pytest.mark.parametrize("orient", ["split", "records", "columns", "index"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_of_every_orientation_gives_the_same_rows(tmp_path: Path, orient: str, indent: int | None) -> None:
    text = pd.DataFrame(ROWS).to_json(orient=orient, indent=indent)  # type: ignore[call-overload]
    (tmp_path / "a.json").write_text(text)
    assert [(row.row, row.values) for row in read(tmp_path / "a.json")] == [(1, ROWS[0]), (2, ROWS[1])]


@pytest.mark.parametrize("indent", [None, 2])
def test_rows_in_a_list_beside_what_describes_them_are_rows(tmp_path: Path, indent: int | None) -> None:
    pandas = json.loads(pd.DataFrame(ROWS).to_json(orient="table", index=False))
    server = {"features": [{"name": "prompt"}], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}
    for value in (pandas, server, {"data": ROWS}, {"version": "1", "Examples": ROWS}):
        (tmp_path / "a.json").write_text(json.dumps(value, indent=indent))
        assert [row.values for row in read(tmp_path / "a.json")] == ROWS


def test_an_object_that_is_a_row_is_no_list_of_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for row in ({"data": turns}, {"prompt": "Hi", "completion": "Hello", "items": ROWS}):
        (tmp_path / "a.json").write_text(json.dumps(row, indent=1))
        assert [read_row.values for read_row in read(tmp_path / "a.json")] == [row]


def test_json_objects_over_several_lines_are_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("\n".join(json.dumps(row, indent=1) for row in ROWS))
    assert [row.values for row in read(tmp_path / "a.json")] == ROWS
    (tmp_path / "b.json").write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}, indent=1))
    assert [row.values for row in read(tmp_path / "b.json")] == [{"messages": [{"role": "user", "content": "Hi"}]}]
    (tmp_path / "c.json").write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}))
    assert [row.values for row in read(tmp_path / "c.json")] == ROWS


def test_tsv_is_read_by_its_delimiter_also_compressed(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress((tmp_path / "a.tsv").read_bytes()))
    for name in ("a.tsv", "b.tsv.gz"):
        assert [row.values for row in read(tmp_path / name)] == ROWS


def test_arrow_is_read_as_a_stream_and_as_a_file(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    for name, write in (("a.arrow", pa.ipc.new_stream), ("b.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / name), "wb") as sink, write(sink, table.schema) as writer:
            writer.write_table(table)
        assert [row.values for row in read(tmp_path / name)] == ROWS


def test_of_a_saved_data_set_the_housekeeping_is_no_data_and_training_alone_is_read(tmp_path: Path) -> None:
    """The files of ``DatasetDict.save_to_disk`` in datasets 4."""
    table = pa.Table.from_pylist(ROWS)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        file = str(tmp_path / split / "data-00000-of-00001.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (tmp_path / split / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (tmp_path / split / "dataset_info.json").write_text('{"features": {}}')
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (source,) = resolve_sources([str(tmp_path)])
    assert Path(source.path).parent.name == "train"
    assert source.left_out == ("test/data-00000-of-00001.arrow",)


def test_what_datasets_itself_saves_is_read_whole_or_by_its_split(tmp_path: Path) -> None:
    one = Dataset.from_list(ROWS)
    one.save_to_disk(str(tmp_path / "one"), num_shards=2)
    DatasetDict(train=one, test=one.select([0])).save_to_disk(str(tmp_path / "both"))
    entries: list[Any] = [
        str(tmp_path / "one"),
        str(tmp_path / "both"),
        Named(path=str(tmp_path / "both"), split="test"),
    ]
    found = [[row.values for source in resolve_sources([entry]) for row in read_rows(source)] for entry in entries]
    assert found == [ROWS, ROWS, ROWS[:1]]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.ndjson"])
def test_every_format_of_text_is_read_compressed(tmp_path: Path, name: str, packing: str) -> None:
    frame, plain = pd.DataFrame(ROWS), tmp_path / name
    if name.endswith("sv"):
        frame.to_csv(plain, index=False, sep="," if name == "a.csv" else "\t")
    else:
        frame.to_json(plain, orient="records", lines=name != "a.json", indent=2 if name == "a.json" else None)
    with pa.output_stream(
        str(tmp_path / (name + packing)), compression={".gz": "gzip", ".zst": "zstd"}[packing]
    ) as file:
        file.write(plain.read_bytes())
    assert [row.values for row in read(tmp_path / (name + packing))] == ROWS


def test_of_the_clone_of_a_hub_data_set_training_alone_is_data(tmp_path: Path) -> None:
    files = (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    )
    for name in (*files, ".git/objects/a.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(ROWS).to_parquet(tmp_path / name)
    (tmp_path / "README.md").write_text("---\nconfigs: []\n---\n")
    (tmp_path / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (tmp_path / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    sources = resolve_sources([str(tmp_path)])
    assert [Path(source.path).relative_to(tmp_path).as_posix() for source in sources] == [*files[:2]]
    assert {source.left_out for source in sources} == {(files[2],)}


def test_offsets_of_a_damaged_arrow_file_are_not_followed(tmp_path: Path) -> None:
    """Read as they are, they end the process or give what is next to the file in memory."""
    table = pa.table({"prompt": ["aa", "bbb", "c"], "completion": ["d", "e", "f"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    whole = (tmp_path / "a.arrow").read_bytes()
    offsets, wrong = struct.pack("<4i", 0, 2, 5, 6), struct.pack("<4i", 0, 2, 1 << 30, 6)
    assert whole.count(offsets) == 1
    (tmp_path / "a.arrow").write_bytes(whole.replace(offsets, wrong))
    with pytest.raises(DataFileError, match="cannot be read"):
        read(tmp_path / "a.arrow")


def test_unused_days_and_hours_that_are_none_do_not_refuse_an_arrow_file(tmp_path: Path) -> None:
    days = pa.Array.from_buffers(pa.date64(), 1, [None, pa.py_buffer(struct.pack("<q", 5))])
    hours = pa.Array.from_buffers(pa.time32("s"), 1, [None, pa.py_buffer(struct.pack("<i", 90_000))])
    batch = pa.record_batch({"prompt": ["a"], "completion": ["b"], "day": days, "hour": hours})
    with pa.ipc.new_file(tmp_path / "a.arrow", batch.schema) as file:
        file.write_batch(batch)
    (row,) = read(tmp_path / "a.arrow")
    assert (row.values["prompt"], row.values["completion"]) == ("a", "b")
