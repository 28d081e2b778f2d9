"""``preflow decide``: incomplete and contradictory answers are refused before anything is asked."""

from types import SimpleNamespace
from typing import Any

import pytest
import typer
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.commands.servers.decide import main
from flows.operation import decisions
from flows.running import deployments

COMPLETE = ["--by", "Ada", "--reason", "better on all held-out rows"]


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(main)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        done = CliRunner().invoke(app, ["demo-1", *arguments])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(autouse=True)
def server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "require_prefect", lambda: None)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []

    def decide(*answer: Any) -> Any:
        found.append(answer)
        return SimpleNamespace(name="demo-1")

    monkeypatch.setattr(decisions, "decide", decide)
    monkeypatch.setattr(decisions, "question_of", lambda run: f"May {run} go live?")
    return found


@pytest.mark.parametrize(("option", "approved"), [("--approve", True), ("--reject", False)])
def test_an_answer_reaches_the_run(answered: list[tuple[Any, ...]], option: str, approved: bool) -> None:
    code, said = run(option, *COMPLETE)
    assert code == 0
    assert answered == [("demo-1", approved, "Ada", "better on all held-out rows")]
    assert ("approved" if approved else "rejected") in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--approve", "--reject", *COMPLETE], "expected one of them"),
        (COMPLETE, "no decision is given"),
    ],
)
def test_a_contradictory_answer_and_none_are_refused(
    answered: list[tuple[Any, ...]], arguments: list[str], said: str
) -> None:
    code, text = run(*arguments)
    assert (code, answered) == (2, [])
    assert said in text


@pytest.mark.parametrize(
    "arguments", [["--approve"], ["--approve", "--by", "Ada"], ["--reject", "--reason", " ", *COMPLETE[:2]]]
)
def test_an_answer_without_a_name_or_a_reason_is_refused(arguments: list[str]) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert "give --by NAME --reason TEXT" in text


def test_without_an_answer_the_question_is_shown(answered: list[tuple[Any, ...]]) -> None:
    assert run() == (0, "May demo-1 go live?")
    assert answered == []


def test_a_server_is_needed() -> None:
    app = typer.Typer()
    app.command()(main)
    with temporary_settings({PREFECT_API_URL: None}):
        done = CliRunner().invoke(app, ["demo-1", "--approve", *COMPLETE])
    assert done.exit_code == 2
    assert "PREFECT_API_URL" in done.output
