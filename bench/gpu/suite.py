"""The tests that need a GPU, each with its outcome as soon as it has run."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.workload import Workload

_TESTS = Path(__file__).parents[2] / "tests"
#: Processes that share the tests: most of their time goes into compiling.
_WORKERS = 4


def gpu_tests() -> list[str]:
    """Files with tests of the marker ``gpu``; the others need not be imported."""
    found = (file for file in sorted(_TESTS.rglob("test_*.py")) if "mark.gpu" in file.read_text(encoding="utf-8"))
    return [str(file) for file in found]


class Outcomes:
    """Pytest's plugin that counts outcomes and keeps what failing tests said last."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.problems: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test's call, and whatever went wrong around it."""
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call":
            self.seconds[name] = round(report.duration, 1)
        if report.when == "call" or not report.passed:
            self.counts[report.outcome] += 1
        if not report.passed:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.problems[name] = str(reason).strip().splitlines()[-1]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file that cannot be imported."""
        if report.failed:
            self.counts["failed"] += 1
            self.problems[report.nodeid] = report.longreprtext.strip().splitlines()[-1]


def run(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """Run them."""
    outcomes = Outcomes()
    shared = ["-n", str(_WORKERS)] if not work.dry and importlib.util.find_spec("xdist") else []
    arguments = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={out / 'tests.xml'}", *shared, *gpu_tests()]
    code = pytest.main(arguments, plugins=[outcomes])
    yield {
        **outcomes.counts,
        "exit_code": int(code),
        "seconds": outcomes.seconds,
        "not_passed": outcomes.problems,
    }
