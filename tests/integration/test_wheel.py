"""The wheel holds all that ``preflow run`` needs: installed elsewhere, it runs a recipe outside any checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, clean_environment

#: What the build reads; the rest of a checkout (environments, state, caches) is not copied.
SOURCES = ("src", "flows", "tasks", "expectations", "recipes", "deployments", "infra")
FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")


def outside() -> dict[str, str]:
    """An environment in which this checkout is on no path."""
    return {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}


def build_wheel(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", str(source)]
    subprocess.run([*pip, "--wheel-dir", str(folder)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel, which borrows the libraries of this one but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=300, env=outside())
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return environment / "bin"


def preflow(bin_folder: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder that is no checkout."""
    return subprocess.run(
        [str(bin_folder / "preflow"), *arguments],
        cwd=folder,
        env={**outside(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.mark.slow
@pytest.mark.server
def test_the_installed_command_runs_a_recipe_in_an_empty_folder(
    installed: Path, tmp_path: Path, tiny_recipe_file: Callable[..., Path]
) -> None:
    recipe = tiny_recipe_file(strategy="sft", dpo=None, evaluation={"kl_prompts": 0, "bootstrap_samples": 100})
    folder = tmp_path / "empty"
    folder.mkdir()
    done = preflow(installed, folder, "run", str(recipe), "--set", "sft.max_steps=2")
    assert done.returncode == os.EX_OK, done.stderr
    assert "tiny: models side by side" in " ".join(done.stdout.split()), "a title is as wide as its table"
    assert [entry.name for entry in folder.iterdir()] == [".preflow"]
    assert list(folder.glob(".preflow/store/sft/*/model/adapter_model.safetensors"))


@pytest.mark.slow
def test_packaged_recipes_are_found_by_name_with_their_data(installed: Path, tmp_path: Path) -> None:
    """Nothing is written beside the packages, and a file of that name in the working folder wins."""
    packages = installed.parent / "lib"
    before = sorted(path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__")
    done = preflow(installed, tmp_path, "validate", "demo")
    assert done.returncode == os.EX_OK, done.stderr
    assert "demonstrations: 612 rows in" in done.stdout
    assert "preferences: 730 rows in" in done.stdout, "510 to train on and 220 held out"
    after = sorted(path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__")
    assert after == before
    (tmp_path / "demo").write_text("strategy: nonsense", encoding="utf-8")
    assert preflow(installed, tmp_path, "run", "demo").returncode == 2


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that was empty before the wheel was installed with all that it asks for."""
    folder = tmp_path_factory.mktemp("alone")
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (small,) = [pin for pin in pins if pin.startswith("filelock==")]
    pip = [sys.executable, "-m", "pip"]
    download = [*pip, "download", "-q", "--no-deps", "-d", str(folder / "asked"), small]
    asked = subprocess.run(download, check=False, timeout=300)
    if asked.returncode:
        pytest.skip(f"no package index gives {small} here")
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q"]
    install += ["-c", str(ROOT / "constraints.txt"), str(build_wheel(folder))]
    subprocess.run(install, check=True, timeout=3000, env=outside())
    return environment / "bin"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_wheel_installed_into_an_empty_environment_runs_a_recipe(
    alone: Path, tmp_path: Path, tiny_recipe_file: Callable[..., Path]
) -> None:
    """With the constraints alone, from the package index, nothing borrowed."""
    recipe = tiny_recipe_file(strategy="sft", dpo=None, evaluation={"kl_prompts": 0, "bootstrap_samples": 100})
    folder = tmp_path / "empty"
    folder.mkdir()
    done = preflow(alone, folder, "run", str(recipe), "--set", "sft.max_steps=2")
    assert done.returncode == os.EX_OK, done.stderr
    assert list(folder.glob(".preflow/store/sft/*/model/adapter_model.safetensors"))
    assert "Usual causes." in preflow(alone, folder, "explain", "ConfigError").stdout
