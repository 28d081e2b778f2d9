"""The benchmark of start-up: what it runs, how it measures, and the figures in its last line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import bench_startup
from bench.bench_startup import IMPORT, RERUN, VALIDATE, Times
from flows.commands.app import modules
from preflow.config.loading import load_recipe


def test_the_last_line_holds_the_least_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Help at least 0.5 and 0.75 s of wall-clock time; validation 9 s where the import takes 8."""
    bench_startup.report(
        {
            "help": Times(wall=[0.5, 0.9], cpu=[0.4, 0.3]),
            "help of run": Times(wall=[1.0, 0.75], cpu=[0.6, 0.7]),
            IMPORT: Times(wall=[8.0, 8.5], cpu=[5.0, 4.0]),
            VALIDATE: Times(wall=[10.0, 9.0], cpu=[6.0, 7.0]),
            RERUN: Times(wall=[12.0, 11.0], cpu=[10.0, 10.5]),
        }
    )
    printed = capsys.readouterr().out.splitlines()
    assert " ".join(printed[1].split()) == "help of run wall 0.75 s, median 0.88; CPU 0.60 s, median 0.65"
    assert json.loads(printed[-1]) == {
        "slowest_help_wall_seconds": 0.75,
        "slowest_help_cpu_seconds": 0.6,
        "validate_wall_seconds": 9.0,
        "validate_cpu_seconds": 6.0,
        "validate_above_import_wall_seconds": 1.0,
        "validate_above_import_cpu_seconds": 2.0,
        "validate_over_import_wall": 1.125,
        "validate_over_import_cpu": 1.5,
        "rerun_wall_seconds": 11.0,
        "rerun_cpu_seconds": 10.0,
    }


def test_every_subcommands_help_is_measured() -> None:
    assert sorted(bench_startup.SUBCOMMANDS) == sorted(modules())


def test_commands_take_turns_after_a_round_that_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def run_once(command: list[str], folder: Path) -> tuple[float, float]:
        order.append(command[0])
        return float(len(order)), 0.5

    monkeypatch.setattr(bench_startup, "run_once", run_once)
    found = bench_startup.measure({"one": ["1"], "two": ["2"]}, 2, tmp_path)
    assert order == ["1", "2"] * 3
    assert (found["one"].wall, found["two"].wall) == ([3.0, 5.0], [4.0, 6.0])


def test_seconds_of_cpu_are_those_of_the_process_and_of_what_it_waited_for(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys, time; time.sleep(0.5); subprocess.run([sys.executable, '-c', {spin!r}])"
    wall, cpu = bench_startup.run_once([sys.executable, "-c", code], tmp_path)
    assert wall - 0.5 > 0.3
    assert 0.3 <= cpu <= wall - 0.5


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        bench_startup.run_once([sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path)
    assert "no such thing" in caught.value.output


def test_the_recipe_that_is_run_again_is_sound(tmp_path: Path) -> None:
    recipe = load_recipe(bench_startup.tiny_recipe(tmp_path))
    assert recipe.strategy == "two-stage"
    assert (tmp_path / "model" / "model.safetensors").is_file()
