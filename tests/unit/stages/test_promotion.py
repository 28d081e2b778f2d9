"""A challenger's answers against the champion's, by the recipe's judge, on answers that are written by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.errors import PromotionError
from preflow.maths.paired import RowScores
from preflow.models.resolve import ModelRef
from preflow.observer import Silent
from preflow.promotion.win_rates import win_rate
from preflow.specs import EvaluateSpec
from preflow.stages.promotion import JudgedAnswers, Measured, judge_answers
from tests.fixtures.judge_server import JudgeServer, always_first, oracle
from tests.unit.stages.test_judging import ORDERS, PAIRS, answer, data, pair

__all__ = ["data"]  # a fixture
pytestmark = pytest.mark.slow  # each test asks a server for tens of verdicts
#: 15 wins, 2 losses, and 3 pairs of good answers, which the oracle decides by their order.
NEW = ["GOOD"] * 15 + ["BAD"] * 2 + ["GOOD"] * 3
OLD = ["BAD"] * 15 + ["GOOD"] * 2 + ["GOOD"] * 3


def measured(name: str, words: list[str]) -> Measured:
    answers = [answer(number, f"{word} of {name} {number}", 10) for number, word in enumerate(words)]
    tokens = {pair(number).id: (3 + number % 2, 4 - number % 2) for number in range(PAIRS)}
    return Measured(RowScores([], [], np.array([])), 10.0, None, 1.0, answers, tokens)


def judged(server: JudgeServer, data: Artifact, **changes: Any) -> JudgedAnswers:
    settings = {"kind": "endpoint", "model": "judge-1", "base_url": server.address}
    recipe = Recipe.model_validate(
        {"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}, "evaluation": {"judge": settings}}
    )
    spec = EvaluateSpec(recipe=recipe, base=ModelRef(name="m", path="", digest=""), data=data)
    new = replace(measured("new", NEW), **changes)
    return judge_answers(spec, recipe, new, measured("old", OLD), Silent())


def test_the_challenger_is_judged_in_both_orders_and_nothing_is_asked_twice(data: Artifact) -> None:
    with JudgeServer(oracle).running() as server:
        found = judged(server, data)
        assert server.calls == 2 * (PAIRS + ORDERS + len(NEW))
        again = judged(server, data)
        assert server.calls == 2 * (PAIRS + ORDERS + len(NEW))
    assert found.scores.values.tolist() == [1.0] * 15 + [0.0] * 2 + [0.5] * 3 == again.scores.values.tolist()
    assert found.test["fit"]
    assert found.judge["model"] == "judge-1"
    compared = win_rate(found.scores, alpha=0.05, samples=200, seed=0)
    assert [compared.new, compared.p] == pytest.approx([0.825, 308 / 131072])


def test_an_unfit_judge_decides_nothing(data: Artifact) -> None:
    with JudgeServer(always_first).running() as server:
        with pytest.raises(PromotionError, match=r"no fit judge: it agrees with people on 0\.50"):
            judged(server, data)
        assert server.calls == 2 * PAIRS, "no answer was judged"


def test_without_answers_there_is_no_win_rate(data: Artifact) -> None:
    with JudgeServer(oracle).running() as server, pytest.raises(PromotionError, match=r"raise evaluation\.kl_prompts"):
        judged(server, data, answers=[])
