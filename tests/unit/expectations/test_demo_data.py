"""The demo's data pass their own gate without a finding, and are what their generator writes."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.running.preparation import data_sources
from preflow.config.loading import load_recipe
from tests.unit.expectations.gate_support import gate

RECIPES = Path(__file__).parents[3] / "recipes"
GENERATOR = RECIPES / "demo" / "generate.py"


@pytest.mark.slow
def test_the_demo_passes_its_own_gate_without_a_finding_and_trains_on_500_rows_of_each_kind(tmp_path: Path) -> None:
    _, report, warnings = gate(data_sources(load_recipe(RECIPES / "demo.yaml")), tmp_path)
    assert (report["verdict"], report["advice"], report["critical"]) == ("fit", [], [])
    for kind in ("demonstrations", "preferences"):
        assert report[kind]["findings"] == {}
        assert report[kind]["train"] >= 500
        assert report[kind]["set_aside"] == 0
    assert not [line for line in warnings if "warning" in line.lower()]


@pytest.mark.slow
def test_the_generator_writes_the_committed_files_again_byte_for_byte() -> None:
    done = subprocess.run([sys.executable, GENERATOR, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The checks that the generator holds its rows to."""
    monkeypatch.syspath_prepend(str(GENERATOR.parent))
    return importlib.import_module("checks")


@pytest.mark.parametrize(
    ("chosen", "named"),
    [("Certainly, number {}.", "the opening 'certainly( number)*'"), ("Number {}, press it.", "the word '(press|it)'")],
)
def test_wording_that_gives_the_label_away_is_refused(checks: Any, chosen: str, named: str) -> None:
    """30 of 30 answers with it are chosen: the lower end of the share's 95 % interval is 30 / (30 + 1.96^2) = 0.89."""
    rows = [{"prompt": f"{n}?", "chosen": chosen.format(n), "rejected": f"Number {n}."} for n in range(30)]
    with pytest.raises(ValueError, match=f"{named} marks 30 chosen and 0 rejected"):
        checks.check_cues("pairs", rows)
    checks.check_cues("pairs", rows[:29])
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    checks.check_cues("pairs", rows + swapped)
