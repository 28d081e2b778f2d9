"""The GPU check runs whole on the CPU, with tiny sizes: every part gives its figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.__main__ import PARTS, deadlines

ROOT = Path(__file__).parents[4]


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_part_must_end_by_its_share_after_the_one_before_it() -> None:
    """Of 100 s a quarter and three quarters; alone a part has all of the time."""
    assert deadlines({"one": 1, "two": 3}, 100) == {"one": 25, "two": 100}
    assert deadlines({"two": 3}, 100) == {"two": 100}


def test_the_parts_are_documented_with_their_seconds() -> None:
    table = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "bench/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [(name, f"{300 * share:.0f}") for name, (_, share) in PARTS.items()]


@pytest.mark.slow
def test_a_dry_run_gives_the_figures_of_every_part(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "GPU_WHEELS": str(tmp_path)}
    command = ["bash", str(ROOT / "bench/gpu_check.sh"), "--dry", "--out", str(tmp_path / "out")]
    command += ["--seconds", "3000"]  # on a busy machine it takes longer than on a GPU
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = lines_of(tmp_path / "out")
    assert [line["part"] for line in lines if "state" in line] == list(PARTS)
    assert {line["state"] for line in lines if "state" in line} == {"done"}
    figures = [line for line in lines if "state" not in line]
    cases = [(line["part"], line.get("rows", line.get("case", "")), "profile" in line) for line in figures]
    sets = ("hh", "1024")
    assert cases == [
        ("device", "", False),
        ("device", "", False),
        ("tests", "", False),
        *((stage, rows, profile) for stage in ("dpo", "sft") for profile in (False, True) for rows in sets),
        *(("scoring", rows, False) for rows in sets),
        *(("memory", case, False) for case in ("lora_1b", "full_1b", "qlora_1b", "qlora_8b")),
        ("generation", "", False),
    ]
    dpo = next(line for line in figures if line["part"] == "dpo")
    assert set(dpo["rows_per_second"]) == {"live", "precomputed", "preflow"}
    assert dpo["arithmetic"]["live"] > dpo["arithmetic"]["precomputed"] > 1
    assert dpo["max_rel_loss_difference"] < 0.01
    (tests,) = (line for line in figures if line["part"] == "tests")
    assert (tests["failed"], tests["exit_code"]) == (0, 0)
    for stage in ("dpo", "sft"):
        for rows in sets:
            assert "aten::" in (tmp_path / f"out/profile_{stage}_{rows}.txt").read_text(encoding="utf-8")
