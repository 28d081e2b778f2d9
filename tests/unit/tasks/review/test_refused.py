"""What a review is opened with, and what cannot be opened or collected."""

from pathlib import Path

import pytest

import tests.fixtures.reviewed_run
from tests.fixtures.reviewed_run import PROMPTS, finished_run
from tests.unit.tasks.review.commands import preflow

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


def test_a_review_is_opened_with_settings_of_the_command(home: Path, run: str) -> None:
    """Half of 4 pairs once more, where the recipe says a tenth."""
    sheets = ("--csv", str(home / "set sheets"))
    half = ("--set", "evaluation.review.repeats=0.5")
    code, said = preflow("open", run, "--reviewers", "emil", "--pairs", "4", *sheets, *half)
    assert (code, "4 pairs, repeated: 2, gold: 1" in said) == (0, True), said
    code, said = preflow("open", run, "--reviewers", "emil", *sheets, "--set", "evaluation.review.repeat=1")
    assert (code, "repeats" in said) == (2, True), said


def test_two_models_that_answer_alike_have_nothing_to_compare(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.fixtures.reviewed_run, "answer", lambda model, number: "the same")
    run = finished_run(home / "alike", "alike")
    code, said = preflow("open", run, "--reviewers", "anna")
    assert (code, f"answer all {PROMPTS} prompts alike: compare with another one" in said) == (2, True)


def test_what_cannot_be_opened_or_collected_says_why(home: Path, run: str, tmp_path: Path) -> None:
    assert preflow("open", run, "--reviewers", "ida", "--pairs", "4", "--csv", str(tmp_path))[0] == 0
    refused = {
        ("open", run, "--reviewers", " , "): "give --reviewers NAME,NAME",
        ("open", run, "--reviewers", "anna,Anna"): "two reviewers have one name",
        ("open", run, "--reviewers", "../etc"): "cannot be a reviewer's name",
        ("open", run, "--reviewers", "anna", "--against", "dpo"): "has sft and base to compare its dpo model with",
        ("open", run, "--reviewers", "anna", "--against", "champion"): "mine-42 has no champion",
        ("open", run, "--reviewers", "anna", "--prompts", "all"): "expected test or train",
        ("collect", run, "--review", "99"): "has no review 99 in this store",
        ("collect", "f" * 32): "MLflow at sqlite",
        ("collect", run, "--csv", str(home)): "has no sheet of",
    }
    for arguments, message in refused.items():
        code, said = preflow(*arguments)
        assert (code, message in said) == (2, True), (arguments, said)
