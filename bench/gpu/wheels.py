"""Collects what the GPU check needs as wheels: ``python -m bench.gpu.wheels FOLDER`` (``make gpu-wheels``).

They are for Python 3.12 on Linux, in the versions of ``constraints.txt``, of the packages named in ``wheels.txt``
alone: what these need besides must be on the machine or in the list. bitsandbytes carries a library for each version of
CUDA; that of torch 2.11's is kept.
"""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

_HERE = Path(__file__).parent
CONSTRAINTS = _HERE.parents[1] / "constraints.txt"
#: What a machine with torch is taken to have, in any version of the last year.
ON_MACHINE = (
    "accelerate", "anyio", "contourpy", "cycler", "fonttools", "hf-xet", "hypothesis", "iniconfig", "jinja2",
    "kiwisolver", "markdown-it-py", "markupsafe", "matplotlib", "mdurl", "mpmath", "networkx", "numpy",
    "packaging", "pandas", "pillow", "pluggy", "psutil", "pyarrow", "pygments", "pyparsing", "python-dateutil",
    "pyyaml", "regex", "safetensors", "scipy", "setuptools", "shellingham", "six", "sortedcontainers", "sympy",
    "torch", "tqdm",
)  # fmt: skip
#: Bytes of all together: they travel with the repository.
LIMIT = 35 * 10**6
#: pip matches the number of a platform exactly.
_PLATFORMS = [f"manylinux_2_{number}_x86_64" for number in (5, 12, 17, 24, 26, 27, 28, 31, 34)]
_PLATFORMS += [f"{name}_x86_64" for name in ("manylinux1", "manylinux2010", "manylinux2014")]
_TARGET = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
#: Libraries of bitsandbytes that are kept: those of the CPU, and of CUDA 13.0.
_KEPT = re.compile(r"bitsandbytes/libbitsandbytes_(cpu|cuda130)\.so")


def names() -> list[str]:
    """The packages of ``wheels.txt``."""
    lines = (_HERE / "wheels.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pinned() -> list[str]:
    """The packages with their versions.

    Raises:
        LookupError: ``constraints.txt`` has none of a package.
    """
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    versions = {plain_name(line.split("==")[0]): line for line in lines if "==" in line and not line.startswith("#")}
    if missing := [name for name in names() if plain_name(name) not in versions]:
        raise LookupError(f"constraints.txt has no version of {', '.join(missing)}")
    return [versions[plain_name(name)] for name in names()]


def plain_name(name: str) -> str:
    """A package's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def slim(wheel: Path) -> None:
    """Leave bitsandbytes' libraries of other versions of CUDA out of its wheel."""
    with zipfile.ZipFile(wheel) as source:
        kept = [info for info in source.infolist() if not info.filename.endswith(".so") or _KEPT.match(info.filename)]
        record = next(info for info in kept if info.filename.endswith(".dist-info/RECORD"))
        files = {info.filename: source.read(info) for info in kept if info is not record}
    files[record.filename] = "".join(_record(files, record.filename)).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)


def _record(files: dict[str, bytes], own: str) -> Iterator[str]:
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        yield f"{name},sha256={digest},{len(content)}\n"
    yield f"{own},,\n"


def main(folder: Annotated[Path, typer.Argument(help="Where to put them; older wheels there are removed.")]) -> None:
    """Collect the wheels.

    Raises:
        typer.Exit: They are too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", *_TARGET]
    subprocess.run([*command, *platforms, "-d", str(folder), *pinned()], check=True)
    for wheel in folder.glob("bitsandbytes-*.whl"):
        slim(wheel)
    wheels = sorted(folder.glob("*.whl"), key=lambda wheel: wheel.stat().st_size, reverse=True)
    total = sum(wheel.stat().st_size for wheel in wheels)
    largest = ", ".join(f"{wheel.name.split('-')[0]} {wheel.stat().st_size / 1e6:.1f}" for wheel in wheels[:4])
    print(f"{len(wheels)} wheels in {folder}, {total / 1e6:.1f} MB (largest: {largest})")
    if total > LIMIT:
        print(f"more than {LIMIT / 1e6:.0f} MB: take the largest out of bench/gpu/wheels.txt", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
