"""Rounds side by side, by hand: what is kept, and what is a reason to stop."""

from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import build, write_json
from preflow.config import Recipe
from preflow.on_policy.rounds import Round, kept_round, round_of, stop_reason

RECIPE = Recipe.model_validate(
    {
        "model_name": "m",
        "sft": {"dataset": "a"},
        "dpo": {"dataset": "b"},
        "evaluation": {"kl_limit": 5},
        "augment": {"max_accuracy_drop": 0.02},
    }
)


def made(number: int, accuracy: float, kl: float | None = 1.0, **changes: Any) -> Round:
    given = {
        "prompts": 100, "pairs": 50, "dropped": {}, "identical_share": 0.0, "cut_share": 0.0, "length_difference": 0.0,
        "chosen_longer_share": 0.5, "judge_first_share": 0.5, "accuracy_before": 0.5, "length_ratio": 1.0,
    }  # fmt: skip
    return Round(**{**given, "number": number, "accuracy": accuracy, "kl": kl, **changes})


@pytest.mark.parametrize(
    ("rounds", "said", "kept"),
    [
        ([made(1, 0.6)], "", 1),
        ([made(1, 0.6), made(2, 0.59)], "", 2),
        ([made(1, 0.6), made(2, 0.57)], "is 0.570 after round 2 and was 0.600", 1),
        ([made(1, 0.47)], "is 0.470 after round 1 and was 0.500", None),
        ([made(1, 0.6), made(2, 0.7, kl=5.5)], "KL from the first model is 5.50 nats after round 2", 1),
        ([made(1, 0.6, kl=None)], "", 1),
    ],
)
def test_rounds_stop_on_kl_and_on_a_fall_and_keep_the_last_good_one(
    rounds: list[Round], said: str, kept: int | None
) -> None:
    reason = stop_reason(rounds, RECIPE)
    assert (said in reason) if said else not reason
    assert kept_round(rounds, RECIPE) == kept


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length_ratio": 1.6}, "1.6 times as long"),
        ({"chosen_longer_share": 0.8}, "chosen is longer in 80% of the pairs"),
        ({"identical_share": 0.3}, "30% of the answers repeat"),
        ({"judge_first_share": 0.7}, "shown first in 70%"),
    ],
)
def test_what_goes_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    assert not made(1, 0.6).warnings()
    (found,) = made(1, 0.6, **changes).warnings()
    assert said in found


def test_a_share_of_few_pairs_is_no_warning() -> None:
    assert not made(1, 0.6, pairs=3, chosen_longer_share=1.0).warnings()


def test_a_round_is_read_from_its_artifacts(tmp_path: Path) -> None:
    """Answers of 30 tokens, those of the first model 20: a ratio of 1.5."""
    pairs = {
        "prompts": 4, "pairs": 2, "dropped": {"tie": 2}, "identical_share": 0.25, "cut_share": 0.5,
        "length_difference": 3.0, "chosen_longer_share": 1.0, "judge": {"test": {"first_share": None}},
    }  # fmt: skip
    models = {
        "sft": {"preference_accuracy": {"value": 0.5}, "response_tokens": 20.0},
        "dpo": {"preference_accuracy": {"value": 0.625}, "response_tokens": 30.0, "kl_sft": {"value": 2.5}},
    }
    paired = build(tmp_path / "p", lambda out: write_json(out / "report.json", pairs))
    report = {"reference": "sft", "models": models}
    found = round_of(2, paired, build(tmp_path / "e", lambda out: write_json(out / "evaluation.json", report)))
    assert (found.accuracy, found.accuracy_before, found.kl, found.length_ratio) == (0.625, 0.5, 2.5, 1.5)
    metrics = found.metrics()
    assert metrics["iterate/kl"] == 2.5
    assert "iterate/judge_first_share" not in metrics
