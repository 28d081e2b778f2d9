"""``preflow plan`` on the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands import plan as plan_command


@pytest.mark.slow
def test_the_command_prints_a_plan_for_a_target_device(tiny_recipe_file: Callable[..., Path]) -> None:
    """A CPU can be named where there is a GPU; a recipe that cannot be read is exit code 2."""
    app = typer.Typer()
    app.command()(plan_command.main)
    recipe = str(tiny_recipe_file())
    for options, verdict in (
        (["--device", "cpu", "--memory", "8"], "Fits a CPU of 8 GB"),
        (["--device", "cpu", "--rate", "1"], "Fits this machine (cpu,"),
        (["--memory", "80", "--set", "dpo.beta=0.3"], "Fits a GPU of 80 GB"),
    ):
        result = CliRunner().invoke(app, [recipe, *options])
        assert result.exit_code == 0, result.output
        assert verdict in result.stdout
    assert CliRunner().invoke(app, [recipe, "--set", "dpo.betta=0.3"]).exit_code == 2


def test_libraries_draw_no_progress_bars_into_the_tables() -> None:
    """tqdm reads its variable when it is imported, so the command sets it before."""
    code = (
        "import sys; from flows.commands.plan import quiet_libraries; assert 'tqdm' not in sys.modules; "
        "quiet_libraries(); from tqdm.auto import tqdm; list(tqdm(range(9), desc='noise'))"
    )
    root = Path(__file__).parents[4]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
