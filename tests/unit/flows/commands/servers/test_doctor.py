"""``preflow doctor`` prints a line for each check, and its exit code says whether something would fail."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import flows.health.all_checks
from flows.commands.servers.doctor import main
from flows.health.all_checks import run_checks
from flows.health.check import Check, failed, ok, warning


def doctor(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(flows.health.all_checks, "run_checks", lambda *_: iter(checks))
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.stdout


@pytest.mark.parametrize(
    ("check", "code"),
    [(ok("disk", "9 GB"), 0), (warning("disk", "3 GB", "free space"), 0), (failed("disk", "none", "free space"), 1)],
)
def test_only_what_would_fail_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, check: Check, code: int) -> None:
    found, said = doctor(monkeypatch, [ok("home", "[here]"), check])
    assert found == code
    lines = said.splitlines()
    assert lines[0] == "ok      home: [here]", "no markup"
    assert lines[1].split() == [check.level, "disk:", *check.found.split()]
    assert lines[2:] == ([f"        {check.remedy}"] if check.remedy else [])


def test_programs_get_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = doctor(monkeypatch, [failed("disk", "none", "free space")], "--json")
    assert code == 1
    assert json.loads(said) == [{"name": "disk", "level": "failed", "found": "none", "remedy": "free space"}]


def test_servers_are_left_alone_where_the_state_folder_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr(flows.health.all_checks, "start_servers", dict)
    monkeypatch.setattr(flows.health.all_checks, "check_hub_token", lambda: ok("hub token", "none"))
    checks: Iterator[Check] = run_checks("pool")
    names = [check.name for check in checks if check.level == "failed"]
    assert names == ["state folder", "servers"]
