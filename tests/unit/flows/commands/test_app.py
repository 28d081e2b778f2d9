"""The command ``preflow``: its subcommands, its version, and what it must not load to print its help."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows import commands
from flows.commands import app as application
from preflow import __version__
from preflow.config import recipe_schema

ROOT = Path(__file__).parents[4]
SUBCOMMANDS = [
    *("augment", "compare", "decide", "deploy", "doctor", "explain", "export", "init", "iterate", "models", "operate"),
    *("plan", "promote", "review", "rollback", "run", "schema", "serve", "store", "submit", "sync", "tune", "ui"),
    *("compare-strategies", "reward-model", "rlhf", "validate", "verify", "worker"),
]


def test_each_module_of_the_folder_is_a_subcommand() -> None:
    (folder,) = commands.__path__
    modules = [file.stem.replace("_", "-") for file in Path(folder).rglob("*.py") if file.name != "__init__.py"]
    assert sorted(modules) == sorted([*SUBCOMMANDS, "app"])
    assert sorted(application.modules()) == sorted(SUBCOMMANDS)
    shown = CliRunner().invoke(application.make_app(), ["--help"]).output
    for name in SUBCOMMANDS:
        assert f" {name} " in shown
    assert "--install-completion" in shown


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(application.make_app(), ["--version"]).output == f"preflow {__version__}\n"


def test_the_schema_is_that_of_recipes() -> None:
    printed = CliRunner().invoke(application.make_app(), ["schema"]).output
    assert json.loads(printed) == recipe_schema()
    kept = (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    assert printed == kept


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_subcommand_says_what_it_does(name: str) -> None:
    done = CliRunner().invoke(application.make_app(), [name, "--help"])
    assert done.exit_code == 0
    assert f"preflow {name}" in done.output or f"root {name}" in done.output


HEAVY = (
    *("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "prefect", "mlflow"),
    *("great_expectations", "pandas", "pyarrow", "numpy", "httpx", "pydantic", "preflow.config", "preflow.specs"),
)


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it has printed what it prints."""
    code = f"""
import atexit, sys
from flows.commands.app import main
atexit.register(lambda: print(*sys.modules))
sys.argv[1:] = {list(arguments)}
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_no_help_loads_what_only_work_needs(name: str) -> None:
    """Nor another command's module."""
    loaded = loaded_by(name, "--help")
    modules = {each: f"flows.commands.{module}" for each, module in application.modules().items()}
    assert modules.pop(name) in loaded
    others = set(modules.values())
    assert not loaded & {*HEAVY, *others}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [*(f"flows.{name}" for name in ("two_stage", "validate", "plan", "export", "ui")), "preflow.stages.reference"],
)
def test_no_help_of_a_module_that_runs_as_a_command_loads_more(module: str) -> None:
    code = f"""
import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules))
sys.argv[1:] = ["--help"]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert not set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_all_commands_share_loads_none_of_them(option: str) -> None:
    loaded = loaded_by(option)
    assert not loaded & {*HEAVY[:-3], *HEAVY[-2:], *(f"flows.commands.{name}" for name in SUBCOMMANDS)}


def test_each_line_of_the_list_is_a_sentence() -> None:
    for command in typer.main.get_group(application.make_app()).commands.values():
        assert re.fullmatch(r"[A-Z][^`\n]{20,}[.]", command.help or ""), command.name


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a working folder, and nothing said about where state lies."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFLOW_", "PREFECT_"))}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    command = [sys.executable, "-m", "flows.commands.app", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["validate", "--help"]])
def test_help_and_version_leave_nothing_behind(arguments: list[str], tmp_path: Path) -> None:
    assert run_in(tmp_path, *arguments).returncode == os.EX_OK
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can make another")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version_work_where_nothing_can_be_written(arguments: list[str]) -> None:
    done = run_in(Path("/proc"), *arguments)
    assert (done.returncode, done.stderr) == (os.EX_OK, "")


def test_an_unknown_subcommand_is_a_usage_error() -> None:
    done = CliRunner().invoke(application.make_app(), ["runn", "recipe.yaml"])
    assert done.exit_code == 2
    assert "run" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["run", "absent.yaml"], ["export", "absent.yaml", "--to", "folder"]])
def test_an_error_is_one_text_and_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.commands.app", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: ")
    assert "Traceback" not in done.stderr
