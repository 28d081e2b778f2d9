"""Tables as other programs write them: TSV, JSON in every orientation, Arrow, saved data sets."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from preflow.data.files.sources import resolve_sources
from tests.unit.data.files.reading import read

ROWS = [{"prompt": "Hi", "completion": "Hel\tlo"}, {"prompt": "Ho", "completion": '"What?"'}]


@pytest.mark.parametrize("orient", ["split", "records", "columns", "index"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_of_every_orientation_gives_the_same_rows(tmp_path: Path, orient: str, indent: int | None) -> None:
    text = pd.DataFrame(ROWS).to_json(orient=orient, indent=indent)  # type: ignore[call-overload]
    (tmp_path / "a.json").write_text(text)
    assert [(row.row, row.values) for row in read(tmp_path / "a.json")] == [(1, ROWS[0]), (2, ROWS[1])]


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
