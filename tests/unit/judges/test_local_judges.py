"""Judges without an address: functions and reward models."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from preflow.config.evaluation.judge import JudgeSettings
from preflow.errors import JudgeError
from preflow.judges import packaged
from preflow.judges.choose import judge_of
from preflow.judges.classifier import ClassifierJudge
from preflow.judges.function import FunctionJudge
from preflow.judges.verdict import Comparison, Outcome
from preflow.judges.verdict_store import score_all
from tests.conftest import make_tokenizer

RECIPES = Path(__file__).parents[3] / "recipes"


def function(name: str) -> JudgeSettings:
    return JudgeSettings(kind="function", model=name)


def test_the_demos_judge_agrees_with_people_on_topics_that_it_was_not_trained_on() -> None:
    """In both orders, on more than 0.7 of the demo's 220 held-out pairs. A text without a known word is worth 0."""
    lines = (RECIPES / "demo" / "preferences_heldout.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    judge = judge_of(function("preflow.judges.packaged:concrete_help"))
    asked = [Comparison(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    right = [verdict.outcome is Outcome.FIRST for _, verdict in judge.verdicts(asked)]
    swapped = [verdict.outcome is Outcome.SECOND for _, verdict in judge.verdicts([pair.swapped() for pair in asked])]
    assert right == swapped
    assert 0.7 < sum(right) / len(right) < 0.9
    ((_, nothing),) = judge.verdicts([Comparison("", "...", "")])
    assert nothing.outcome is Outcome.TIE


@pytest.mark.slow
def test_the_demos_judge_is_what_its_training_gives() -> None:
    done = subprocess.run([sys.executable, str(RECIPES / "demo" / "judge.py"), "--check"], check=False)
    assert done.returncode == 0


def test_a_judge_whose_files_were_changed_judges_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(packaged.WEIGHTS.read_bytes() + b" ")
    monkeypatch.setattr(packaged, "WEIGHTS", tmp_path / "other.npz")
    packaged._weights.cache_clear()
    with pytest.raises(JudgeError, match=r"other\.npz is not the file that this judge was tested with"):
        packaged.concrete_help("", "a", "b")


def test_a_function_that_the_operator_does_not_name_is_not_called() -> None:
    with pytest.raises(JudgeError, match="PREFLOW_TRUSTED_JUDGES=os:system"):
        FunctionJudge(function("os:system"))


def test_an_error_names_the_section_that_describes_the_judge(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"^augment\.judge\.model is the function os:system"):
        judge_of(function("os:system"), "augment.judge")
    with pytest.raises(JudgeError, match=r"^augment\.judge\.model is .*: expected a folder"):
        judge_of(JudgeSettings(kind="classifier", model=str(tmp_path)), "augment.judge")


def test_a_function_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_TRUSTED_JUDGES", "textwrap:absent, no_such_module:judge")
    for name in ("textwrap:absent", "no_such_module:judge"):
        with pytest.raises(JudgeError, match="cannot be imported"):
            FunctionJudge(function(name))


def test_a_value_that_is_no_outcome_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_TRUSTED_JUDGES", "tests.unit.judges.test_local_judges:odd")
    ((_, verdict),) = FunctionJudge(function("tests.unit.judges.test_local_judges:odd")).verdicts(
        [Comparison("", "", "")]
    )
    assert (verdict.outcome, verdict.reason) == (Outcome.UNREADABLE, "maybe")


def odd(prompt: str, first: str, second: str) -> str:
    return "maybe"


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier whose configuration names another pad token than its tokenizer's."""
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=5,
        initializer_range=0.3,
    )
    config.num_labels = 1
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(str(folder))  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(str(folder))
    return folder


def texts(count: int) -> list[tuple[str, str]]:
    return [(f"Where is order {n}?", "It is on its way. " * (n + 1)) for n in range(count)]


def classifier(folder: Path, **changes: Any) -> ClassifierJudge:
    return ClassifierJudge(JudgeSettings.model_validate({"kind": "classifier", "model": str(folder), **changes}))


def test_scores_are_the_same_alone_and_in_a_batch(reward_model: Path) -> None:
    judge = classifier(reward_model)
    assert judge.scores(texts(6)) == pytest.approx([judge.scores([text])[0] for text in texts(6)], abs=1e-5)


def test_scores_are_kept_and_computed_once(reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = classifier(reward_model)
    found = score_all(judge, judge.identity, texts(3), tmp_path, lambda done, of: None)
    assert found == pytest.approx(judge.scores(texts(3)), abs=1e-5)
    asked: list[int] = []
    own = judge.scores

    def counted(some: Sequence[tuple[str, str]]) -> list[float]:
        asked.append(len(some))
        return own(some)

    monkeypatch.setattr(judge, "scores", counted)
    again = score_all(judge, judge.identity, texts(5)[::-1], tmp_path, lambda done, of: None)
    assert asked == [2], "two of five are new"
    assert again[::-1][:3] == found
    score_all(judge, {"another": "judge"}, texts(3), tmp_path, lambda done, of: None)
    assert asked == [2, 3]


def test_scores_are_proven_where_no_verdict_was_asked_before(reward_model: Path) -> None:
    judge = classifier(reward_model)
    judge._model.config.pad_token_id = 5
    with pytest.raises(JudgeError, match="differently in a batch than alone"):
        judge.scores(texts(6))


def test_the_higher_score_wins_in_both_orders(reward_model: Path) -> None:
    judge = classifier(reward_model, batch_size=2)
    ((prompt, short), (_, long)) = (texts(1)[0], ("", texts(5)[4][1]))
    asked = Comparison(prompt, short, long)
    first, second = (dict(judge.verdicts([one]))[0] for one in (asked, asked.swapped()))
    scores = judge.scores([(prompt, short), (prompt, long)])
    assert first.outcome is (Outcome.FIRST if scores[0] > scores[1] else Outcome.SECOND)
    assert {first.outcome, second.outcome} == {Outcome.FIRST, Outcome.SECOND}


def test_a_model_that_reads_the_wrong_token_in_a_batch_is_refused(reward_model: Path) -> None:
    judge = classifier(reward_model)
    judge._model.config.pad_token_id = 5  # what the folder says
    prompt, short = texts(1)[0]
    with pytest.raises(JudgeError, match="differently in a batch than alone"):
        list(judge.verdicts([Comparison(prompt, short, texts(6)[5][1])]))


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="expected a folder with a sequence classifier in safetensors"):
        classifier(tmp_path)
