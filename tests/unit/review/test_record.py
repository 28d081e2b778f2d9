"""What a promotion reads of a collected review."""

from typing import Any

from preflow.maths.intervals import Interval
from preflow.review.record import HumanReview, reviews_of, with_report


def report(review: int, prompts: str = "test", reason: str = "") -> dict[str, Any]:
    model = {"name": "dpo", "run": "r", "digest": "d" * 64}
    return {
        "review": review,
        "prompts": prompts,
        "against": "sft",
        "models": [model, {**model, "name": "sft"}],
        "rows": [
            {"prompt_id": "p", "cluster": "c", "score": 1.0, "answers": {}},
            {"prompt_id": "q", "cluster": "c", "score": 0.25, "answers": {}},
        ],
        "win_rate": None if reason else {"value": 0.625, "low": 0.25, "high": 1.0},
        "p": None if reason else 0.5,
        "reason": reason,
        "warnings": [],
    }


def test_scores_come_with_those_of_the_other_model() -> None:
    found = HumanReview.of(report(1))
    new, old = found.rows()
    assert (new.ids, new.clusters) == (("p", "q"), ("c", "c"))
    assert (new.values.tolist(), old.values.tolist()) == ([1, 0.25], [0, 0.75])
    assert (found.interval, found.counts) == (Interval(0.625, 0.25, 1.0), True)


def test_a_review_that_does_not_count_has_no_win_rate() -> None:
    found = HumanReview.of(report(1, reason="3 questions are open"))
    assert (found.interval, found.counts) == (None, False)


def test_collecting_again_replaces_and_training_prompts_are_no_evidence() -> None:
    kept = with_report([report(2), report(1)], report(2, reason="low"))
    assert [(each["review"], each["reason"]) for each in kept] == [(1, ""), (2, "low")]
    assert [each.review for each in reviews_of([report(3, "train"), *reversed(kept)])] == [1, 2]
