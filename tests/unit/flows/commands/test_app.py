"""The command ``preflow``: its subcommands, its version, and what it must not load to print its help."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import commands
from flows.commands import app as application
from preflow import __version__
from preflow.config import recipe_schema

ROOT = Path(__file__).parents[4]
SUBCOMMANDS = ["export", "plan", "run", "schema", "store", "ui", "validate"]


def test_each_module_of_the_folder_is_a_subcommand() -> None:
    modules = [found.name for found in pkgutil.iter_modules(commands.__path__)]
    assert sorted(modules) == sorted([*SUBCOMMANDS, "app"])
    shown = CliRunner().invoke(application.build(), ["--help"]).output
    for name in SUBCOMMANDS:
        assert f" {name} " in shown
    assert "--install-completion" in shown


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(application.build(), ["--version"]).output == f"preflow {__version__}\n"


def test_the_schema_is_that_of_recipes() -> None:
    printed = CliRunner().invoke(application.build(), ["schema"]).output
    assert json.loads(printed) == recipe_schema()
    kept = (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    assert printed == kept


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_subcommand_says_what_it_does(name: str) -> None:
    done = CliRunner().invoke(application.build(), [name, "--help"])
    assert done.exit_code == 0
    assert f"preflow {name}" in done.output or f"root {name}" in done.output


HEAVY = (
    *("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "prefect", "mlflow"),
    *("great_expectations", "pandas", "pyarrow", "numpy", "httpx", "preflow.config", "preflow.specs"),
)


def test_no_help_loads_what_only_work_needs() -> None:
    """Every command's module is imported for ``preflow --help``, and its help needs no more."""
    code = f"""
import sys
from flows.commands.app import build
for name in {SUBCOMMANDS}:
    try:
        build()([name, "--help"], prog_name="preflow")
    except SystemExit as end:
        assert end.code == 0
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_subcommand_is_a_usage_error() -> None:
    done = CliRunner().invoke(application.build(), ["runn", "recipe.yaml"])
    assert done.exit_code == 2
    assert "run" in done.output


@pytest.mark.parametrize("arguments", [["run", "absent.yaml"], ["export", "absent.yaml", "--to", "folder"]])
def test_an_error_is_one_text_and_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.commands.app", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: ")
    assert "Traceback" not in done.stderr
