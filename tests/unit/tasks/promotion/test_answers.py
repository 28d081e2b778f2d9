"""Decisions on answers: by a judge that must be fit, and by people, each of whose reviews is another look."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tasks.evidence
import tasks.promotion
from flows.commands.app import make_app
from flows.promotion import Asked
from preflow.config import Recipe
from preflow.errors import PromotionError
from preflow.promotion.held_out import NewRows, TrainedOn
from preflow.promotion.win_rates import PromptScores
from preflow.review.record import HumanReview
from preflow.stages.promotion import JudgedAnswers
from tasks.evidence import comparison_key
from tasks.promotion import compare
from tasks.tracking.client import client
from tasks.tracking.registry.decisions import taken
from tasks.tracking.registry.versions import read_model
from tests.fixtures.promotions import COUNTS, named

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds

JUDGE = ("--set", "evaluation.judge.kind=function", "--set", "evaluation.judge.model=judges:mine")


def judged(number: int) -> JudgedAnswers:
    better, worse, equal = COUNTS[number]
    won = [1.0] * better + [0.0] * worse + [0.5] * equal
    names = [str(place) for place in range(len(won))]
    scores = PromptScores(names, names, np.array(won), np.zeros(len(won)))
    return JudgedAnswers({"kind": "function"}, {"fit": True}, scores, 0)


def test_the_win_rate_of_a_fit_judge_promotes_and_an_unfit_one_cannot(
    promote: Callable[..., tuple[int, str]], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (*JUDGE, "--set", "promotion.primary=win_rate")

    def unfit(*given: object) -> JudgedAnswers:
        raise PromotionError("no fit judge: it agrees with people on 0.50 of 100 held-out pairs")

    monkeypatch.setattr(tasks.evidence, "judge_answers", unfit)
    code, said = promote(1, *wanted)
    assert (code, "no fit judge" in said) == (2, True)
    assert not taken(named(file)), "what cannot be asked is no decision"
    monkeypatch.setattr(tasks.evidence, "judge_answers", lambda *given: judged(1))
    code, said = promote(1, *wanted)
    assert (code, "win rate 0.825, above one half by +0.325" in said) == (0, True)
    done = CliRunner().invoke(make_app(), ["models", named(file), "--json"])
    (decision,) = json.loads(done.output)["decisions"]
    (found,) = decision["evidence"]["challengers"]
    assert found["comparison"]["new"] == pytest.approx(0.825)
    assert found["judged"]["judge"] == {"kind": "function"}


def test_a_win_rate_that_may_be_too_low_refuses_a_gain_in_accuracy(
    promote: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 6 wins on 12 prompts and loses on 8: the lower bound of 0.6 lies below 0.5."""
    monkeypatch.setattr(tasks.evidence, "judge_answers", lambda *given: judged(6))
    code, said = promote(1, *JUDGE, "--set", "promotion.guards.win_rate=0.5")
    assert (code, "guard win_rate: lower bound of the win rate over the champion is 0.3" in said) == (1, True)


def review(better: int, worse: int, reason: str = "") -> HumanReview:
    models = [{"name": "dpo", "run": "r", "digest": "1" * 64}, {"name": "sft", "run": "r", "digest": "s" * 64}]
    rows = [
        {"prompt_id": str(place), "cluster": str(place), "score": score}
        for place, score in enumerate([1.0] * better + [0.0] * worse)
    ]
    found = {"review": 3, "against": "sft", "models": models, "rows": rows, "win_rate": None, "p": None}
    return HumanReview.of({**found, "reason": reason, "warnings": []})


@pytest.mark.parametrize(
    ("found", "code", "named"),
    [
        (review(20, 0), 0, "win rate 1.000 in human review, above one half by +0.500"),
        (review(12, 8), 3, "held-out prompts would show a gain"),
        (review(20, 0, "2 questions are open"), 2, "human review 3 of version 1 does not count: 2 questions are open"),
        (
            None,
            2,
            "no human review compares version 1 with the sft: preflow review open ... --reviewers NAME,NAME --against",
        ),
    ],
)
def test_a_human_review_promotes_where_it_counts(
    promote: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    found: HumanReview | None,
    code: int,
    named: str,
) -> None:
    asked = []

    def human_review(run_id: str, other: str) -> HumanReview | None:
        asked.append(other)
        return found

    monkeypatch.setattr(tasks.evidence, "human_review", human_review)
    monkeypatch.setattr(tasks.evidence, "_reference_digest", lambda spec: "s" * 64)
    ended, said = promote(1, "--set", "promotion.primary=human_win_rate")
    assert (ended, all(part in said for part in named.split(" ... "))) == (code, True), said
    assert asked == ["s" * 64], "without a champion people compared it with its reference"


def test_what_people_said_of_prompts_that_the_champion_was_trained_on_does_not_count(
    promote: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 13 wins and 8 losses the first 3 prompts, all won, are left out: 10 of 18."""
    monkeypatch.setattr(tasks.evidence, "human_review", lambda *given: review(13, 8))
    monkeypatch.setattr(tasks.evidence, "_reference_digest", lambda spec: "s" * 64)
    seen = TrainedOn(frozenset({"0", "1", "2"}))
    monkeypatch.setattr(tasks.promotion, "without_training_rows", lambda data, _, folder: NewRows(data, seen, (21, 3)))
    _, said = promote(1, "--set", "promotion.primary=human_win_rate")
    assert "win rate 0.556 in human review" in said
    assert "left out, since the champion was trained on their first user turns: 3 of 21 held-out pairs" in said


def test_another_judge_or_measure_is_another_look(file: Path) -> None:
    model = read_model(named(file))
    plain = Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {}})
    judging = {"evaluation": {"judge": {"kind": "function", "model": "judges:mine"}}}
    rated = Recipe.model_validate(
        {"model_name": "m", "sft": {}, "dpo": {}, **judging, "promotion": {"primary": "win_rate"}}
    )
    keys = {comparison_key(recipe, [model.versions[0]], None) for recipe in (plain, rated)}
    assert len(keys) == 2
    assert comparison_key(rated, [model.versions[0]], None) in keys


@pytest.mark.parametrize("changed", [{"seed": 8}, {"kl_prompts": 8}, {"max_new_tokens": 8}], ids=str)
def test_other_answers_are_another_look_of_a_judge_and_none_of_the_accuracy(
    file: Path, changed: dict[str, int]
) -> None:
    """Answers are drawn by the recipe of today, so they could be drawn anew until the judge prefers them by chance."""
    versions, judge = [read_model(named(file)).versions[0]], {"kind": "function", "model": "judges:mine"}
    keys: dict[str, set[str]] = {"win_rate": set(), "preference_accuracy": set()}
    for primary, found in keys.items():
        for each in ({}, changed):
            values = {"model_name": "m", "sft": {}, "dpo": {}, "promotion": {"primary": primary}}
            evaluation = {"judge": judge, **{name: value for name, value in each.items() if name != "seed"}}
            seed = {name: value for name, value in each.items() if name == "seed"}
            recipe = Recipe.model_validate({**values, **seed, "evaluation": evaluation})
            found.add(comparison_key(recipe, versions, None))
    assert {primary: len(found) for primary, found in keys.items()} == {"win_rate": 2, "preference_accuracy": 1}


def test_each_human_review_is_another_look_and_the_same_one_is_not(
    promote: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a review could be repeated until people prefer the challenger by chance, at the level of the first."""
    first, again = review(12, 8), review(12, 8).model_copy(update={"review": 4})
    corrected = review(13, 7)
    monkeypatch.setattr(tasks.evidence, "_reference_digest", lambda spec: "s" * 64)
    decisions = []
    for found in (first, first, again, corrected, first):
        monkeypatch.setattr(tasks.evidence, "human_review", lambda *given, found=found: found)
        _, said = promote(1, "--set", "promotion.primary=human_win_rate")
        decisions.append(said.partition(" on these rows")[0].rpartition("decision ")[2])
    assert decisions == ["1", "1", "2", "3", "1"]


def test_a_review_of_another_run_that_made_the_same_model_counts(
    promote: Callable[..., tuple[int, str]], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rerun that finds everything computed registers no version, and is the latest run: reviews are opened on it."""
    store, version = client(), read_model(named(file)).versions[0]
    experiment = store.get_run(version.run_id).info.experiment_id
    rerun = store.create_run(experiment, tags={"kind": "pipeline"}).info.run_id
    tags = {"artifact_digest": version.artifact_digest, "mlflow.parentRunId": rerun}
    stage = store.create_run(experiment, tags=tags).info.run_id
    for each in (stage, rerun):
        store.set_terminated(each, "FINISHED")
    known = vars(tasks.promotion)["past_run"]
    monkeypatch.setattr(tasks.promotion, "past_run", lambda name, run_id: known(name, version.run_id))
    given = {version.run_id: review(20, 0), rerun: review(12, 8).model_copy(update={"review": 4})}
    monkeypatch.setattr(tasks.evidence, "human_review", lambda run_id, other: given.get(run_id))
    monkeypatch.setattr(tasks.evidence, "_reference_digest", lambda spec: "s" * 64)
    wanted = ("--dry-run", "--set", "promotion.primary=human_win_rate")
    code, said = promote(1, *wanted)
    assert (code, "win rate 0.600 in human review" in said) == (3, True), "the newest of both"
    store.set_terminated(rerun, "FAILED")
    code, said = promote(1, *wanted)
    assert (code, "win rate 1.000 in human review" in said) == (0, True), "a run that failed is not asked"


def test_errors_of_a_promotion_hold_no_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect keeps their texts."""

    def refused(name: str) -> None:
        raise RuntimeError("sent Bearer sk-planted-2718281828 to the judge")

    monkeypatch.setattr(tasks.promotion, "read_state", refused)
    with pytest.raises(RuntimeError) as raised:
        compare.fn(Asked(recipe=str(file)).resolved(), [])
    assert str(raised.value) == "sent Bearer *** to the judge"
