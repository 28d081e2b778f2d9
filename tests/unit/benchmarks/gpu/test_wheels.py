"""The wheels of the GPU check: everything that the library needs is among them or on the machine."""

import ast
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bench.gpu.wheels import ON_MACHINE, names, pinned, plain_name, slim

ROOT = Path(__file__).parents[4]
#: Named by a recipe, an extra, or a model that is fetched: imported where they are used, and not by the check.
OPTIONAL = {"deepspeed", "unsloth", "detect_secrets", "phonenumbers", "lm_eval"}
WHERE = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}


def imported(files: list[Path]) -> set[str]:
    """Distributions of the packages that files import, wherever in them."""
    tops: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                tops.add(node.module.partition(".")[0])
    known = packages_distributions()
    own = {"preflow", "bench", "tests"} | OPTIONAL | set(sys.stdlib_module_names)
    return {plain_name(name) for top in tops - own for name in known[top]}


def needed(distributions: set[str]) -> set[str]:
    """These and what they need, by their own metadata."""
    found: set[str] = set()
    waiting = set(distributions)
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name == "torch":  # brings its own
            continue
        for each in map(Requirement, requires(name) or ()):
            if each.marker is None or each.marker.evaluate(WHERE):
                waiting |= {plain_name(each.name)} - found
    return found


@pytest.mark.slow
def test_all_that_the_library_and_the_check_need_travels_or_is_there() -> None:
    files = [*ROOT.glob("src/preflow/**/*.py"), *ROOT.glob("bench/gpu/*.py"), ROOT / "bench/bench_dpo.py"]
    files += [ROOT / "bench/parts/contenders.py", ROOT / "tests/conftest.py", ROOT / "tests/unit/stages/test_gpu.py"]
    there = {plain_name(name) for name in (*names(), *ON_MACHINE)}
    assert needed(imported(files)) - there == set()
    assert not {plain_name(name) for name in names()} & set(ON_MACHINE)


def test_no_package_of_the_pipeline_is_needed() -> None:
    there = {plain_name(name) for name in (*names(), *ON_MACHINE)}
    assert not there & {"prefect", "mlflow", "great-expectations"}


def test_every_wheel_has_its_pinned_version() -> None:
    assert [plain_name(line.split("==")[0]) for line in pinned()] == [plain_name(name) for name in names()]
    assert names() == sorted(names(), key=str.lower)


@pytest.mark.slow
def test_a_slim_wheel_has_the_libraries_of_one_cuda_and_can_be_installed(tmp_path: Path) -> None:
    wheel, folder = tmp_path / "bitsandbytes-0.1-py3-none-any.whl", "bitsandbytes-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in ("cpu", "cuda118", "cuda130", "cuda132", "rocm64"):
            made.writestr(f"bitsandbytes/libbitsandbytes_{name}.so", name * 1000)
        made.writestr("bitsandbytes/__init__.py", "ONE = 1\n")
        made.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 0.1\n")
        made.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{folder}/RECORD", "bitsandbytes/libbitsandbytes_cuda118.so,sha256=0,0\n")
    slim(wheel)
    install = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*install, "--target", str(tmp_path / "site"), str(wheel)], check=True)
    libraries = {file.name for file in (tmp_path / "site/bitsandbytes").glob("*.so")}
    assert libraries == {"libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so"}
    record = (tmp_path / "site" / folder / "RECORD").read_text(encoding="utf-8")
    assert "cuda118" not in record
    assert "bitsandbytes/libbitsandbytes_cuda130.so,sha256=" in record
