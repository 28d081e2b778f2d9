"""``python -m tests.breaks``: break the source line by line, and see which tier of the tests notices.

Each break is put into a copy of the tree and the test files that it names are run: first those tests of them that
``make check`` runs, then, where these pass, the others of ``make test``. Where all pass, both tiers are run whole.
A break that no test notices is a failure, and so is a test that fails without any break. Large libraries are imported
once, and each run is a fork of that process.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.breaks.catalogue import BREAKS, ROOT, Break

#: Large, and imported by nearly every test that uses a model.
LIBRARIES = (
    "torch",
    "transformers",
    "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
    "peft",
    "datasets",
    "hypothesis",
)
#: Which tests each tier runs that the tier before did not.
TIERS = {
    "make check": "not slow and not server and not nightly and not gpu",
    "make test": "(slow or server) and not nightly and not gpu",
}
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".preflow", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "site", "*.egg-info"
)
#: The tests of whole tiers, but for those that find lines of the source by their text, as breaks do.
WHOLE = ("tests", "--ignore=tests/breaks", "--ignore=tests/unit/tasks/runtime/test_identity_edits.py")
SECONDS = 1200
WHOLE_SECONDS = 3600
#: Failures of a whole tier after which it ends: some are of this machine and not of the break.
MOST_FAILURES = 8


class Failures:
    """Writes down the tests that fail."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember it."""
        if report.failed:
            with self.file.open("a", encoding="utf-8") as handle:
                handle.write(f"{report.nodeid}\n")


@dataclass(frozen=True)
class Outcome:
    """What became of one break: the tier and the test that noticed it, or why there is none."""

    tier: str
    test: str

    @property
    def noticed(self) -> bool:
        """Whether a test failed because of it."""
        return self.tier in TIERS


NONE = Outcome("none", "no test fails")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the breaks; gives 1 where one was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.breaks", description=__doc__)
    parser.add_argument("names", nargs="*", help="breaks to run; all of them by default")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests on the unbroken tree first")
    asked = parser.parse_args(arguments)
    chosen = [each for each in BREAKS if not asked.names or each.name in asked.names]
    if unknown := set(asked.names) - {each.name for each in BREAKS}:
        parser.error(f"no such break: {', '.join(sorted(unknown))}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="preflow-breaks-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=NOT_COPIED, symlinks=True)
        if not asked.no_baseline and (test := failure_without_a_break(tree, chosen)):
            print(f"fails without any break: {test}", file=sys.stderr)
            return 1
        outcomes = {each: outcome_of(tree, each) for each in chosen}
    return report(outcomes)


def failure_without_a_break(tree: Path, breaks: Sequence[Break]) -> str:
    """The first test that fails on the unbroken tree; empty where all pass."""
    files = sorted({file for each in breaks for file in each.tests})
    for tier in TIERS:
        code, tests = run_tests(tree, files, tier)
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return tests[0]
    return ""


def outcome_of(tree: Path, each: Break) -> Outcome:
    """Break the tree, run the tests tier by tier, and put the tree right again."""
    file = tree / each.file
    original = file.read_text(encoding="utf-8")
    started = time.monotonic()
    write_source(file, original.replace(each.old, each.new))
    try:
        found = failures(tree, each.tests) or failures(tree, WHOLE)
    finally:
        write_source(file, original)
    # Of the whole tiers also tests fail that this machine cannot run: those fail without the break too.
    by_it = (one for one in found if not one.noticed or named(each, one) or passes(tree, one))
    outcome = next(by_it, NONE)
    print(f"{each.name}: {outcome.tier}: {outcome.test} ({time.monotonic() - started:.0f} s)", flush=True)
    return outcome


def named(each: Break, outcome: Outcome) -> bool:
    """Whether a test is of the files that a break names; those were seen to pass on the unbroken tree."""
    return outcome.test.startswith(each.tests)


def passes(tree: Path, outcome: Outcome) -> bool:
    """Whether a test passes on a tree as it is."""
    return run_tests(tree, [outcome.test], outcome.tier)[0] == pytest.ExitCode.OK


def failures(tree: Path, files: Sequence[str]) -> list[Outcome]:
    """The first tests of some files or folders that fail, of the first tier in which any does."""
    for tier in TIERS:
        code, tests = run_tests(tree, files, tier)
        if code == pytest.ExitCode.TESTS_FAILED:
            return [Outcome(tier, test) for test in tests]
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return [Outcome("error", tests[0])]
    return []


def write_source(file: Path, text: str) -> None:
    """Write a module; its compiled form goes, since Python may take one of the same second and size for it."""
    file.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(file))).unlink(missing_ok=True)


def run_tests(tree: Path, files: Sequence[str], tier: str) -> tuple[int, list[str]]:
    """Run one tier's tests of some files in a fork; pytest's exit code, and its failures or the end of its log."""
    with tempfile.TemporaryDirectory() as folder:
        failed, log = Path(folder) / "failed", Path(folder) / "log"
        process = multiprocessing.get_context("fork").Process(
            target=in_child, args=(tree, files, TIERS[tier], failed, log)
        )
        process.start()
        seconds = WHOLE_SECONDS if files == WHOLE else SECONDS
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            return pytest.ExitCode.INTERRUPTED, [f"no end after {seconds} s"]
        found = failed.read_text(encoding="utf-8").splitlines() if failed.exists() else []
        return process.exitcode, found or [log.read_text(encoding="utf-8")[-2000:]]


def in_child(tree: Path, files: Sequence[str], marks: str, failed: Path, log: Path) -> None:
    """Run pytest on a tree in this process, which has imported nothing of any tree's library or tests but this."""
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    for name in list(sys.modules):
        if name.split(".")[0] in {"preflow", "flows", "tasks", "expectations", "bench", "tests"}:
            del sys.modules[name]
    os.chdir(tree)
    sys.path[:] = [str(tree / "src"), str(tree), *(path for path in sys.path if not inside(path, ROOT))]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    most = MOST_FAILURES if files == WHOLE else 1
    options = ["-q", f"--maxfail={most}", "-p", "no:cacheprovider", "--no-header", "-m", marks]
    sys.exit(pytest.main([*options, *files], plugins=[Failures(failed)]))


def inside(path: str, folder: Path) -> bool:
    """Whether a place on Python's path is of a tree's source; its environment's packages stay."""
    return Path(path or ".").resolve() in (folder, folder / "src")


def report(outcomes: dict[Break, Outcome]) -> int:
    """Print one table and one line."""
    width = max(len(each.name) for each in outcomes)
    print(f"\n{'break':<{width}}  noticed by  first test that fails")
    for each, outcome in outcomes.items():
        print(f"{each.name:<{width}}  {outcome.tier:<10}  {outcome.test.splitlines()[-1] if outcome.test else ''}")
    counts = {tier: sum(outcome.tier == tier for outcome in outcomes.values()) for tier in TIERS}
    missed = [each.name for each, outcome in outcomes.items() if not outcome.noticed]
    told = ", ".join(f"{count} by {tier}" for tier, count in counts.items())
    print(f"{len(outcomes)} breaks: noticed {told}; not noticed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
