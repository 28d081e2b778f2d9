"""Versions that do not agree, and servers that do not load because of them, are named."""

import importlib.metadata
import subprocess
import sys

import pytest

from flows.health.check import Level
from flows.health.versions import check_servers, check_versions


def test_what_is_installed_here_agrees() -> None:
    assert check_versions().level is Level.ok


def test_the_sqlalchemy_with_which_no_schedule_fires_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1.9" if name == "sqlalchemy" else real(name))
    check = check_versions()
    assert check.level is Level.failed
    assert "sqlalchemy 2.1.9, expected <2.1,>=2.0.58" in check.found
    assert "constraints.txt" in check.remedy


def test_a_distribution_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "trl":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "trl is not installed" in check_versions().found


def test_an_extra_that_was_not_asked_for_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ['nowhere-to-be-found>=1; extra == "personal"', "numpy>=2"]
    )
    check = check_versions()
    assert (check.level, check.found) == (Level.ok, "1 required distributions agree")


@pytest.mark.parametrize(
    ("code", "level", "found"),
    [
        ("raise ImportError('cannot import name X')", Level.failed, "ImportError: cannot import name X"),
        ("pass", Level.ok, "loads"),
    ],
)
def test_a_server_that_does_not_load_says_why(code: str, level: Level, found: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    (check,) = check_servers({"the server": process})
    assert (check.name, check.level) == ("the server", level)
    assert found in check.found
