"""How much memory there is, and what becomes of a measurement that the system does not allow."""

import os
from pathlib import Path

import pytest
import torch

from preflow.models import peak_memory
from preflow.models.peak_memory import PeakMemory, machine_memory

WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [
        ("memory.max", "1073741824\n", 2**30),
        ("memory.max", "max\n", WHOLE),
        ("memory/memory.limit_in_bytes", "2147483648\n", 2**31),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", WHOLE),  # version 1 without a limit
        ("memory.current", "5\n", WHOLE),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, name: str, limit: str, expected: int) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(limit)
    assert machine_memory(tmp_path) == expected


def test_where_nothing_can_be_measured_no_number_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    assert PeakMemory(torch.device("cpu")).above_idle() is None
