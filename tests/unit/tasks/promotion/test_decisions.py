"""Challengers against the champion: what is decided on, how often a held-out set has served, and how a command ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.evidence
import tasks.promotion
from flows.commands.app import make_app
from flows.promotion import Asked, settle
from preflow.benchmarks.harness import DocumentResult
from preflow.config import Recipe
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.errors import ChampionChangedError, PromotionError
from preflow.stages.promotion import Measured
from tasks.promotion import compare
from tasks.tracking.client import client
from tasks.tracking.registry.decisions import taken
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, read_model
from tests.fixtures.promotions import named

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


def test_the_fifth_challenger_on_one_held_out_set_needs_more_than_the_first(
    promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    """15 better, 2 worse, p = 0.00235: at 0.025, 0.0083, 0.0042, 0.0025 eligible, at 0.0017 not."""
    codes = [promote(number, "--dry-run") for number in (1, 2, 3, 4, 5)]
    assert [code for code, _ in codes] == [0, 0, 0, 0, 1]
    assert "this held-out set has served 4 decisions before" in codes[4][1]
    assert [each.tags["outcome"] for each in taken(named(file))] == [*["eligible"] * 4, "refused"]
    assert CHAMPION not in read_model(named(file)).aliases
    code, said = promote(1)
    assert (code, "decision 1 on these rows" in said) == (0, True), "the first comparison again keeps its number"
    assert read_model(named(file)).aliases == {CHAMPION: 1}


def test_exit_codes_say_what_was_decided(promote: Callable[..., tuple[int, str]], file: Path) -> None:
    code, said = promote(6)
    assert (code, "about 229 held-out prompts would show" in said) == (3, True)
    code, said = promote(7)
    assert (code, "guard kl: KL from the reference, nats per response is 11, limit 10" in said) == (1, True)
    assert promote(1)[0] == 0
    code, said = promote(1)
    assert (code, "is the champion already" in said) == (2, True)
    code, said = promote(2, "--by", "Ada")
    assert (code, "give --by NAME --reason TEXT" in said) == (2, True)


def test_without_a_challenger_nothing_can_be_asked(file: Path) -> None:
    done = CliRunner().invoke(make_app(), ["promote", str(file)])
    assert done.exit_code == 2
    assert "has no challenger: finish a run" in " ".join(done.output.split())


def test_of_several_runs_the_best_is_promoted(promote: Callable[..., tuple[int, str]], file: Path) -> None:
    runs = {each.number: each.run_id for each in read_model(named(file)).versions}
    code, said = promote(6, "--run", runs[1], "--run", runs[6])
    assert code == 0, said
    assert read_model(named(file)).aliases[CHAMPION] == 1


def test_a_loss_in_a_benchmark_that_cannot_be_ruled_out_refuses_a_gain(
    promote: Callable[..., tuple[int, str]], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 400 documents the challenger gets ten less right than the champion: a loss beyond 0.02 is possible.

    On equal ones it is not: z = 2.638 at the second decision's level of 0.05 / 6, and z^2 / (400 + z^2) = 0.0171.
    """

    def with_right(found: Measured, right: int) -> Measured:
        documents = [DocumentResult(str(place), "acc", float(place < right)) for place in range(400)]
        return replace(found, benchmarks={"tone": documents})

    def doing(real: Callable[..., Measured], right: int) -> Callable[..., Measured]:
        return lambda *given: with_right(real(*given), right)

    others, measure = (vars(tasks.promotion)[name] for name in ("_measure_others", "_measure_challenger"))
    monkeypatch.setattr(
        tasks.promotion, "_measure_others", lambda *given: [with_right(each, 310) for each in others(*given)]
    )
    monkeypatch.setattr(tasks.promotion, "_measure_challenger", doing(measure, 300))
    code, said = promote(1)
    assert (code, "guard benchmark_margin: largest loss in a benchmark that its interval allows is" in said) == (
        1,
        True,
    )
    monkeypatch.setattr(tasks.promotion, "_measure_challenger", doing(measure, 310))
    code, said = promote(2)
    assert (code, "guard benchmark_margin: largest loss in a benchmark that its interval allows is 0.0171" in said) == (
        0,
        True,
    )
    done = CliRunner().invoke(make_app(), ["models", named(file), "--json"])
    (found,) = json.loads(done.output)["decisions"][-1]["evidence"]["challengers"]
    assert found["benchmarks"]["tone"]["rows"] == 400


def test_benchmarks_that_the_run_did_not_do_are_asked_for_and_not_passed_over(
    promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    code, said = promote(1, "--set", "evaluation.benchmarks.tasks=[hellaswag]")
    assert (code, "did not do: run the recipe with them (preflow run RECIPE), then ask" in said) == (2, True), said
    assert not taken(named(file))


def test_benchmarks_of_the_run_that_the_recipe_does_not_ask_for_are_not_done(
    promote: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, measure = (vars(tasks.promotion)[name] for name in ("past_run", "_measure_challenger"))

    def with_benchmarks(name: str, run_id: str) -> Any:
        run = known(name, run_id)
        evaluation = run.recipe.evaluation.model_copy(update={"benchmarks": BenchmarkSettings(tasks=("hellaswag",))})
        return run.model_copy(update={"recipe": run.recipe.model_copy(update={"evaluation": evaluation})})

    asked = []

    def measured(challenger: Any, observer: object) -> Measured:
        asked.append(challenger.run.recipe.evaluation.benchmarks)
        found: Measured = measure(challenger, observer)
        return found

    monkeypatch.setattr(tasks.promotion, "past_run", with_benchmarks)
    monkeypatch.setattr(tasks.promotion, "_measure_challenger", measured)
    assert promote(1, "--dry-run")[0] == 0
    wanted = BenchmarkSettings(tasks=("hellaswag",))
    set_limit = [
        each for name in ("tasks=[hellaswag]", "limit=5") for each in ("--set", f"evaluation.benchmarks.{name}")
    ]
    assert promote(1, "--dry-run", "--set", "evaluation.benchmarks.tasks=[hellaswag]")[0] == 0
    assert asked == [None, wanted]
    code, said = promote(1, "--dry-run", "--set", "evaluation.benchmarks.tasks=[hellaswag, arc_easy]")
    assert (code, "asks for arc_easy in evaluation.benchmarks, which run" in said) == (2, True), said
    assert promote(1, "--dry-run", *set_limit)[0] == 0
    assert asked[2:] == [wanted.model_copy(update={"limit": 5})], "as the recipe asks for it now"


def test_required_approval_is_asked_for_and_kept(promote: Callable[..., tuple[int, str]], file: Path) -> None:
    wanted = ("--set", "promotion.approval=required")
    code, said = promote(1, *wanted)
    assert (code, "requires a person's approval" in said) == (2, True)
    assert CHAMPION not in read_model(named(file)).aliases
    code, said = promote(1, *wanted, "--by", "Ada", "--reason", "better everywhere")
    assert code == 0, said
    done = CliRunner().invoke(make_app(), ["models", named(file), "--json"])
    assert done.exit_code == 0
    assert '"by": "Ada"' in done.output
    assert '"identity": "declared"' in done.output


def test_a_name_and_a_reason_are_kept_where_no_approval_is_asked_for(
    promote: Callable[..., tuple[int, str]], file: Path
) -> None:
    assert promote(1, "--by", "Ada", "--reason", "better everywhere")[0] == 0
    done = CliRunner().invoke(make_app(), ["models", named(file), "--json"])
    (decision,) = json.loads(done.output)["decisions"]
    assert (decision["by"], decision["reason"], decision["identity"]) == ("Ada", "better everywhere", "declared")


def test_a_rejection_is_a_decision_and_moves_nothing(file: Path) -> None:
    client().set_registered_model_alias(named(file), CHALLENGER, "1")
    asked = Asked(recipe=str(file), overrides={"promotion.approval": "required"})
    questions = []

    def no(question: str, key: str) -> tuple[bool, str, str]:
        questions.append((question, key))
        return False, "Ada", "too early"

    decision = settle(asked, compare.fn(asked.resolved(), []), no)
    ((question, key),) = questions
    assert "Promote version 1" in question
    assert "15 better, 2 worse, 3 equal" in question
    assert key == "promote-1"
    assert (decision.outcome, decision.reason) == ("rejected", "too early")
    assert CHAMPION not in read_model(named(file)).aliases


def test_a_champion_that_changed_while_models_were_measured_ends_with_1(
    promote: Callable[..., tuple[int, str]], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promote(1)[0] == 0
    real = compare.fn

    def slow(recipe: Recipe, runs: list[str]) -> Any:
        draft = real(recipe, runs)
        client().set_registered_model_alias(named(file), CHAMPION, "3")
        return draft

    monkeypatch.setattr(compare, "fn", slow)
    code, said = promote(2)
    assert (code, "changed meanwhile: it was version 1 and is version 3" in said) == (1, True)
    monkeypatch.setattr(compare, "fn", real)
    code, said = promote(2)
    assert (code, "was moved by hand" in said) == (2, True)
    with pytest.raises(PromotionError, match="moved by hand"):
        compare.fn(Asked(recipe=str(file)).resolved(), [])
    assert issubclass(ChampionChangedError, PromotionError)
