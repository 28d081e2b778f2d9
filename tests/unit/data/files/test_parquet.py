"""Parquet files with values that Python cannot represent are read all the same."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preflow.errors import DataFileError
from tests.unit.data.files.reading import read


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


def test_a_column_of_which_damaged_things_are_said_is_one_clear_error(tmp_path: Path) -> None:
    """Asked for what the footer says of that column, pyarrow ends the process."""
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"] * 6}), file)
    whole = file.read_bytes()
    histograms, wrong = b"\x19\x06\x19\x26", b"\x09\x06\x19\x26"
    assert histograms in whole
    file.write_bytes(whole.replace(histograms, wrong))
    with pytest.raises(DataFileError, match="cannot be read: Definition level histogram size mismatch"):
        read(file)
