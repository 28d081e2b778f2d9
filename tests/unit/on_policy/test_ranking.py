"""Pairs of judged answers, by hand: what makes one, and every reason why a prompt has none."""

from itertools import combinations
from typing import Any

import pytest

from preflow.on_policy.ranking import (
    Chosen,
    Compared,
    choose_by_comparisons,
    choose_by_scores,
    usable_answers,
)


def answer(text: str, finished: bool = True) -> dict[str, Any]:
    return {"text": text, "finished": finished}


def ranked(*order: int) -> list[Compared]:
    """A judge that knows an order, best first, and is not fooled by places."""
    return [
        Compared(a, b, "first", "second") if order.index(a) < order.index(b) else Compared(a, b, "second", "first")
        for a, b in combinations(sorted(order), 2)
    ]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer("a"), answer("b"), answer("a"), answer("c", False)], [0, 1]),
        ([answer("a"), answer("a")], "identical"),
        ([answer("a"), answer("b", False)], "unfinished"),
        ([answer("a"), answer(" ")], "blank"),
    ],
)
def test_answers_that_can_be_compared(answers: list[dict[str, Any]], expected: Any) -> None:
    assert usable_answers(answers) == expected


def test_best_and_worst_of_comparisons_with_the_share_that_each_wins() -> None:
    assert choose_by_comparisons(ranked(2, 0, 1), 0.0) == Chosen(2, 1, 1.0, 0.0)


def test_a_judge_that_always_says_first_makes_no_pair() -> None:
    always = [Compared(a, b, "first", "first") for a, b in combinations(range(4), 2)]
    assert choose_by_comparisons(always, 0.0) == "order"


def test_a_tie_is_no_pair_and_no_coin_toss() -> None:
    assert choose_by_comparisons([Compared(0, 1, "tie", "tie")], 0.0) == "tie"
    assert choose_by_scores({0: 0.5, 1: 0.5}, 0.0) == "tie"


def test_a_best_answer_that_beats_the_worst_in_one_order_alone_is_no_pair() -> None:
    """Shares: 0 wins 1.0 and 0.75, 1 wins 0.0 and 1.0, 2 wins 0.25 and 0.0; best 0, worst 2, and 0 against 2 turns."""
    compared = [
        Compared(0, 1, "first", "second"), Compared(0, 2, "first", "tie"), Compared(1, 2, "first", "second"),
    ]  # fmt: skip
    assert choose_by_comparisons(compared, 0.0) == "order"


def test_unreadable_replies_are_no_votes() -> None:
    assert choose_by_comparisons([Compared(0, 1, "unreadable", "first")], 0.0) == "unjudged"
    compared = [
        Compared(0, 1, "first", "second"), Compared(0, 2, "first", "unreadable"), Compared(1, 2, "first", "second"),
    ]  # fmt: skip
    assert choose_by_comparisons(compared, 0.0) == "unjudged", "best and worst were not compared"


def test_margins_below_the_least_one_are_no_pair() -> None:
    assert choose_by_scores({0: 1.0, 1: 0.4, 2: 0.6}, 0.5) == Chosen(0, 1, 1.0, 0.4)
    assert choose_by_scores({0: 1.0, 1: 0.6}, 0.5) == "below_margin"
    assert choose_by_comparisons(ranked(0, 1, 2), 1.0) == Chosen(0, 2, 1.0, 0.0)


def test_of_equal_scores_the_answer_that_was_sampled_first() -> None:
    assert choose_by_scores({0: 0.1, 1: 0.9, 2: 0.9, 3: 0.1}, 0.0) == Chosen(1, 0, 0.9, 0.1)
