"""Answers for people: those that are kept, and new ones of a tiny model."""

from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import build, write_json
from preflow.data.validated import load_pairs
from preflow.evaluation import generation
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.review import kept_answers, new_answers, paired_answers, prompts_of, spread
from tests.fixtures.prepared_run import Run
from tests.unit.support import write_data


@pytest.mark.slow
def test_both_models_answer_training_prompts_once(prepared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt that is asked has an answer of each model; asked again, no model generates."""
    spec = EvaluateSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=prepared.sft)
    prompts = spread(prompts_of(prepared.data, "train"), 3)
    asked = (prompts, prepared.recipe.evaluation, prepared.recipe.seed, Silent())
    new, old = new_answers(spec, "sft", *asked), new_answers(spec, "base", *asked)
    assert list(new) == list(old) == list(prompts)
    pairs = paired_answers(prompts, new, old)
    assert [(pair.turns, pair.new, pair.old) for pair in pairs] == [(prompts[n], new[n], old[n]) for n in prompts]
    training = {row.prompt for row in load_pairs(prepared.data, "train")}
    assert {pair.turns for pair in pairs} <= training

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(generation, "generate", never)
    assert new_answers(spec, "sft", *asked) == new


def test_samples_are_kept_answers_and_greedy_ones_are_not(tmp_path: Path) -> None:
    def write(out: Path) -> None:
        (out / "answers").mkdir()
        sampled, greedy = {"prompt_id": "p", "text": "yes", "seed": 0}, {"prompt_id": "p", "text": "no", "seed": None}
        write_json(out / "answers" / "dpo.json", [sampled, greedy])

    evaluation = build(tmp_path / "evaluation", write)
    assert kept_answers(evaluation, "dpo") == {"p": "yes"}
    assert kept_answers(evaluation, "sft") == {}


def test_prompts_that_one_model_was_not_asked_are_no_pair(tmp_path: Path) -> None:
    prompts = prompts_of(build(tmp_path / "data", write_data), "eval")
    first, second = list(prompts)[:2]
    pairs = paired_answers(prompts, {first: "a", second: "b", "elsewhere": "c"}, {second: "d", "elsewhere": "e"})
    assert [(pair.prompt_id, pair.new, pair.old) for pair in pairs] == [(second, "b", "d")]
