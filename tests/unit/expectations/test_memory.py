"""A set far larger than the memory it may take is validated, not refused."""

from pathlib import Path

import pytest

from bench.bench_validation import make, run_gate_apart

ROWS, TIMES = 130_000, 4
#: MiB that the kernel lets validation's process take above its imports, and each of its workers.
LIMIT = 64


@pytest.mark.parametrize(
    ("rows", "times_the_limit"),
    [pytest.param(ROWS // 3, 1.2, marks=pytest.mark.slow), pytest.param(ROWS, 3.5, marks=pytest.mark.nightly)],
)
def test_a_set_larger_than_the_memory_allowed_is_validated(tmp_path: Path, rows: int, times_the_limit: float) -> None:
    """Rows in memory are several times larger than in their file: one that held them all would fail by far."""
    file = tmp_path / "pairs.jsonl"
    make(file, rows, TIMES)
    assert file.stat().st_size > times_the_limit * LIMIT * 2**20
    found = run_gate_apart(file, memory_mb=16, data_limit_mb=LIMIT)
    assert found["seconds"] > 0


@pytest.mark.nightly
def test_a_json_array_of_twice_the_memory_allowed_is_validated(tmp_path: Path) -> None:
    lines, file = tmp_path / "pairs.jsonl", tmp_path / "pairs.json"
    make(lines, ROWS // 2, TIMES)
    with lines.open() as rows, file.open("w") as array:
        array.write("[")
        array.writelines(f"{',' if number else ''}\n{row.rstrip()}" for number, row in enumerate(rows))
        array.write("\n]\n")
    assert file.stat().st_size > 1.8 * LIMIT * 2**20
    found = run_gate_apart(file, memory_mb=16, data_limit_mb=LIMIT)
    assert found["seconds"] > 0
