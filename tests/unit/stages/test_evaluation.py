"""Which model is the reference of which measure."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from preflow.config import Recipe
from preflow.evaluation.preferences import PairScores
from preflow.stages.evaluation import _add_preferences


def scores(chosen: float, rejected: float) -> PairScores:
    """One pair of two tokens a side."""
    return PairScores(*(np.array([value], dtype=np.float64) for value in (chosen, rejected, 2.0, 2.0)))


@pytest.mark.parametrize(
    ("before", "margin", "gain"),
    [
        # Against SFT: 0.5 x ((-4 + 6) - (-9 + 7)) = 2, and SFT preferred chosen already.
        ({"base": scores(-9, -8), "sft": scores(-6, -7)}, 2.0, 0.0),
        # Against the base, the only other model: 0.5 x ((-4 + 9) - (-9 + 8)) = 3, and it did not.
        ({"base": scores(-9, -8)}, 3.0, 1.0),
    ],
    ids=["two stages", "DPO alone"],
)
def test_rewards_and_the_gain_are_measured_against_the_model_that_dpo_started_from(
    before: dict[str, PairScores], margin: float, gain: float
) -> None:
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": "m", "dpo": {"dataset": "p.jsonl", "beta": 0.5}})
    spec: Any = SimpleNamespace(recipe=recipe)
    found = {**before, "dpo": scores(-4, -9)}
    report: dict[str, Any] = {"models": {name: {} for name in found}}
    _add_preferences(spec, found, np.arange(1), report)
    assert report["models"]["dpo"]["reward_margin"]["value"] == margin
    assert report["comparison"]["preference_accuracy_gain"]["value"] == gain
    assert not [name for name in before if "reward_margin" in report["models"][name]]
