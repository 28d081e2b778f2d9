"""Breaks of the source, one line each, and the tests that should notice them first: ``breaks.toml``, read.

A break is a mistake that a person could make: a wrong sign, swapped sides, a digest that is not compared, a lost mask.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Every one of these has at least one break, in a module of its own or of a package below that is not named here.
PACKAGES = (
    "src/preflow/config/",
    "src/preflow/data/files/",
    "src/preflow/data/tokens/",
    "src/preflow/data/quality/rows/",
    "src/preflow/data/quality/sets/",
    "src/preflow/data/quality/wording/",
    "src/preflow/dpo/",
    "src/preflow/estimates/",
    "src/preflow/evaluation/",
    "src/preflow/fingerprints/",
    "src/preflow/fingerprints/code/",
    "src/preflow/logprobs/",
    "src/preflow/maths/",
    "src/preflow/models/",
    "src/preflow/models/cpu/",
    "src/preflow/models/packed/",
    "src/preflow/stages/",
    "src/preflow/training/",
    "tasks/",
    "tasks/runtime/",
    "tasks/tracking/",
    "flows/commands/",
    "flows/planning/",
    "flows/running/",
    "expectations/",
)


@dataclass(frozen=True, slots=True)
class Break:
    """One line that is made wrong.

    Attributes:
        name: What it is called on the command line.
        file: Relative to the root.
        old: Part of one line, which the file has once.
        new: What takes its place.
        reason: What is wrong then.
        tests: Files or folders of tests to run, relative to the root.
    """

    name: str
    file: str
    old: str
    new: str
    reason: str
    tests: tuple[str, ...]


def read_breaks() -> tuple[Break, ...]:
    """The breaks of ``breaks.toml``, in its order."""
    with Path(__file__).with_name("breaks.toml").open("rb") as handle:
        entries = tomllib.load(handle)
    return tuple(Break(name, **{**entry, "tests": tuple(entry["tests"])}) for name, entry in entries.items())


BREAKS = read_breaks()
