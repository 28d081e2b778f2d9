"""Two scripted reviewers, with figures that are derived by hand."""

from typing import Any

import numpy as np
import pytest

from preflow.config.evaluation.review import ReviewSettings
from preflow.review.collecting import Given, checked, collect, majority, metrics_of
from preflow.review.key import Choice
from preflow.review.new_pairs import new_pairs
from tests.unit.review.keys import always_a, by_pair, given, letters, make_key, pair

#: anna new and ben new on 20 pairs, anna new and ben old on 5, the reverse on 10, both old on 15.
ANNA = letters("n" * 25 + "o" * 25)
BEN = letters("n" * 20 + "o" * 5 + "n" * 10 + "o" * 15)


def test_two_reviewers_with_known_answers() -> None:
    """Kappa of [[20, 5], [10, 15]] is 0.4; scores are 1 on 20 prompts, 0.5 on 15, 0 on 15: 27.5 / 50 = 0.55."""
    key = make_key(50, gold=3)
    report = collect(key, given(key, anna=by_pair(ANNA), ben=by_pair(BEN)))
    assert (report["agreement"]["measure"], report["agreement"]["units"]) == ("kappa", 50)
    assert report["agreement"]["value"] == pytest.approx(0.4)
    assert report["win_rate"]["value"] == pytest.approx(0.55)
    assert report["win_rate"]["low"] < 0.55 < report["win_rate"]["high"]
    assert (report["better"], report["worse"], report["equal"]) == (20, 15, 15)
    assert (report["self_consistency"]["value"], report["self_consistency"]["of"]) == (1, 10)
    assert (report["gold_accuracy"]["value"], report["gold_accuracy"]["of"]) == (1, 6)
    assert (report["reason"], report["warnings"], report["open"]) == ("", [], 0)
    assert metrics_of(report) == {
        "human/win_rate": pytest.approx(0.55),
        "human/kappa": pytest.approx(0.4),
        "human/self_consistency": 1,
        "human/gold_accuracy": 1,
        "human/open": 0,
        "human/counts": 1,
    }


def test_a_reviewer_who_always_says_a_moves_nothing_and_is_named() -> None:
    key = make_key(20, ("anna",), gold=2)
    report = collect(key, always_a(key, "anna"))
    assert report["win_rate"]["value"] == 0.5
    assert report["self_consistency"]["value"] == 0
    assert report["gold_accuracy"]["value"] == 0.5
    assert report["warnings"] == [
        "anna: chose A 24 times and B 0 times, though each model was A in half of the questions",
        "anna: answered 0 of 2 repeated questions as before",
    ]
    assert report["agreement"]["value"] is None


def test_a_reviewer_who_contradicts_human_pairs_is_named() -> None:
    key = make_key(20, ("anna",), gold=2)
    report = collect(key, given(key, anna=lambda question: "old"))
    assert report["warnings"] == ["anna: agreed with 0 of 2 held-out human pairs"]
    assert report["win_rate"]["value"] == 0


def test_prompts_with_one_first_turn_are_resampled_together() -> None:
    """Of 20 pairs in two clusters one cluster is won: Wilson's interval of 1 in 2, not of 10 in 20.

    The half-width is z sqrt(0.25 / 2 + z^2 / 16) / (1 + z^2 / 2).
    """
    pairs = [pair(number, cluster=number % 2) for number in range(20)]
    key = make_key(20, ("anna",), pairs=pairs)
    choices: list[Choice] = ["new" if number % 2 else "old" for number in range(20)]
    rate = collect(key, given(key, anna=by_pair(choices)))["win_rate"]
    half = 1.96 * (0.25 / 2 + 1.96**2 / 16) ** 0.5 / (1 + 1.96**2 / 2)
    assert rate["value"] == 0.5
    assert (rate["low"], rate["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)


def test_agreement_below_the_minimum_gives_no_win_rate_and_no_pair() -> None:
    """[[5, 5], [5, 5]]: p_o = p_e = 0.5, so kappa is 0."""
    key = make_key(20, settings={"min_agreement": 0.1})
    anna, ben = by_pair(letters("n" * 10 + "o" * 10)), by_pair(letters("nnnnnooooo" * 2))
    report = collect(key, given(key, anna=anna, ben=ben))
    assert report["win_rate"] is None
    assert report["reason"].startswith(
        "reviewers agree too little: kappa 0.00 on 20 pairs, expected at least 0.1. They agree on 50% of"
    )
    assert "human/win_rate" not in metrics_of(report)
    assert metrics_of(report)["human/counts"] == 0
    lenient = key.model_copy(update={"settings": ReviewSettings(min_agreement=0)})
    assert collect(lenient, given(key, anna=anna, ben=ben))["win_rate"]["value"] == 0.5


def test_reviewers_who_all_prefer_one_model_agree() -> None:
    key = make_key(20)
    report = collect(key, given(key, anna=lambda q: "new", ben=lambda q: "new"))
    assert (report["reason"], report["win_rate"]["value"]) == ("", 1)
    assert report["win_rate"]["low"] == pytest.approx(20 / (20 + 1.96**2), abs=1e-4), "Wilson's, of 20 prompts"
    assert (report["agreement"]["value"], report["agreement"]["observed"], report["agreement"]["units"]) == (1, 1, 20)


def test_one_disagreement_among_reviewers_who_prefer_one_model_is_no_lack_of_agreement() -> None:
    """p_o = 11/12, and either answer is chosen by chance half of the time: (11/12 - 1/2) / (1/2) = 5/6.

    Krippendorff's of three reviewers, one of whom dissents once: under both names 36 ratings of each, so
    D_e = 1 - 2 * 36 * 35 / (72 * 71); 2 of 24 units have 2 of their 6 ordered pairs alike, the others all.
    """
    key = make_key(12)
    report = collect(key, given(key, anna=lambda q: "new", ben=by_pair(letters("n" * 11 + "o"))))
    assert report["agreement"]["value"] == pytest.approx(5 / 6)
    assert (report["reason"], report["win_rate"]["value"]) == ("", pytest.approx(11.5 / 12))
    three = make_key(12, ("anna", "ben", "carla"))
    answers = given(three, anna=lambda q: "new", ben=by_pair(letters("n" * 11 + "o")), carla=lambda q: "new")
    found = collect(three, answers)["agreement"]
    alike = (22 * 6 + 2 * 2) / (24 * 6)
    assert (found["measure"], found["units"]) == ("alpha", 12)
    assert found["value"] == pytest.approx(1 - (1 - alike) / (1 - 2 * 36 * 35 / (72 * 71)))


def test_reviewers_who_nearly_all_say_neither_read_what_to_set() -> None:
    """Under both names 22 of 24 are alike, and chance is 24 * 22 / 24^2, the same: kappa is 0."""
    key = make_key(12)
    ben: list[Choice] = ["neither" if number else "new" for number in range(12)]
    answers = given(key, anna=lambda q: "neither", ben=by_pair(ben))
    report = collect(key, answers)
    assert report["agreement"]["value"] == pytest.approx(0)
    assert "They agree on 92% of what two of them say of one pair" in report["reason"]
    assert "--set evaluation.review.min_agreement=-1" in report["reason"]
    lenient = key.model_copy(update={"settings": ReviewSettings(min_agreement=-1)})
    assert collect(lenient, answers)["win_rate"]["value"] == pytest.approx((11 * 0.5 + 0.75) / 12)


def test_reviewers_who_choose_at_random_do_not_agree_whatever_they_prefer() -> None:
    """Ben names the new model on 4 of anna's 6 new and on 5 of her 6 old ones: p_o = (4 + 1) / 12."""
    key = make_key(12)
    anna, ben = by_pair(letters("n" * 6 + "o" * 6)), by_pair(letters("nnnnoonnnnno"))
    report = collect(key, given(key, anna=anna, ben=ben))
    assert report["agreement"]["value"] == pytest.approx((5 / 12 - 1 / 2) / (1 / 2))
    assert report["reason"].startswith("reviewers agree too little: kappa -0.17 on 12 pairs")


def test_an_answer_outside_the_options_leaves_its_question_open() -> None:
    key = make_key(20, ("anna",))
    answers = given(key, anna=lambda question: "new")
    first = key.questions[0].id
    answers[first] = Given("purple")
    report = collect(key, answers)
    assert report["invalid"] == [{"question": first, "answer": "purple"}]
    assert report["reason"] == "1 of 23 questions are open, 1 of them with an answer outside the options"
    assert report["win_rate"] is None
    assert collect(key, answers, accept_open=True)["win_rate"]["value"] == 1


def test_open_questions_can_be_given_up_and_declined_ones_are_done() -> None:
    key = make_key(20)
    half = given(key, anna=lambda q: "new", ben=lambda q: "new")
    left = [question.id for question in key.of("ben")[:10]]
    some = {name: each for name, each in half.items() if name not in left}
    assert collect(key, some)["reason"] == "10 of 46 questions are open"
    assert collect(key, some, accept_open=True)["agreement"]["measure"] == "alpha"
    report = collect(key, {**half, **dict.fromkeys(left, Given(None))})
    assert (report["reason"], report["declined"], report["open"]) == ("", 10, 0)
    assert collect(key, {}, accept_open=True)["reason"] == "no pair has an answer"


def test_ties_and_two_bad_answers_are_worth_a_half_and_agree_with_themselves_alone() -> None:
    key = make_key(4, ("anna",), settings={"repeats": 0, "gold": 0}, gold=0)
    report = collect(key, given(key, anna=by_pair(["new", "tie", "neither", "old"])))
    assert [row["score"] for row in report["rows"]] == [1, 0.5, 0.5, 0]
    assert report["choices"] == {"new": 1, "tie": 1, "neither": 1, "old": 1}


def verdict(number: int, *verdicts: str, of: str = "answers") -> dict[str, Any]:
    asked = pair(number)
    return {"of": of, "first": asked.new, "second": asked.old, "verdicts": list(verdicts)}


def test_a_judge_is_held_to_the_majority_of_people() -> None:
    """People: 5 new, 5 old. The judge: 4 of the new ones and 1 of the old ones new, the others old.

    p_o = (4 + 4) / 10 = 0.8, p_e = (5 * 5 + 5 * 5) / 100 = 0.5, kappa = 0.6. One more pair it could not read.
    """
    new, old = ("first", "second"), ("second", "first")
    verdicts = [verdict(number, *(new if number in (0, 1, 2, 3, 5) else old)) for number in range(10)]
    verdicts += [verdict(10, "unreadable", "first"), verdict(11, "first", "first", of="human pairs")]
    key = make_key(12, ("anna",))
    choices = letters("nnnnnooooooo")
    report = collect(key, given(key, anna=by_pair(choices)), verdicts)
    assert report["judge"]["units"] == 10
    assert report["judge"]["observed"] == pytest.approx(0.8)
    assert metrics_of(report)["human/judge_kappa"] == pytest.approx(0.6)
    assert collect(key, given(key, anna=by_pair(choices)))["judge"] is None


def test_a_verdict_that_the_order_turns_around_is_a_tie() -> None:
    key = make_key(2, ("anna",))
    report = collect(
        key, given(key, anna=lambda question: "tie"), [verdict(0, "first", "first"), verdict(1, "tie", "tie")]
    )
    assert (report["judge"]["observed"], report["judge"]["units"]) == (1, 2)


def test_more_than_half_is_a_majority() -> None:
    assert majority(["new", "new", "old", "new"]) == ("new", 0.75)
    assert majority(["new", "old"]) is None
    assert majority(["neither", "neither", "new", "neither"]) == ("neither", 0.75)
    assert majority([None, None]) is None
    assert majority(["new", None, None]) == ("new", 1)
    assert majority(["new", None, None], 3) is None


def test_pairs_come_of_majorities_alone() -> None:
    key = make_key(5, ("anna", "ben", "carla"), prompts="train")
    anna = by_pair(["new", "old", "tie", "new", "neither"])
    ben = by_pair(["new", "old", "tie", "old", "neither"])
    carla = by_pair(["old", "old", "new", "tie", "new"])
    rows = new_pairs(key, checked(key, given(key, anna=anna, ben=ben, carla=carla)))
    assert [(row["prompt"][0]["content"][-2], row["chosen"][0]["content"]) for row in rows] == [
        ("0", "On its way, 0."),
        ("1", "No idea, 1."),
    ]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "No idea, 0."}]
    assert rows[0]["agreement"] == pytest.approx(2 / 3)
    assert (rows[1]["agreement"], rows[1]["reviewers"]) == (1, ["anna", "ben", "carla"])
    assert {row["source"] for row in rows} == {"human-review"}
    report = collect(key, given(key, anna=anna, ben=ben, carla=carla))
    assert (report["win_rate"], metrics_of(report)) == (None, {})


def test_one_of_three_reviewers_is_no_majority_where_the_others_did_not_answer() -> None:
    """Carla answers nothing, and ben the first pair alone: two of three reviewers chose on it, one on the others."""
    key = make_key(3, ("anna", "ben", "carla"), prompts="train", settings={"repeats": 0, "gold": 0}, gold=0)
    answers = given(key, anna=lambda q: "new", ben=lambda q: "new", carla=lambda q: "new")
    for question in key.questions:
        if question.reviewer == "carla" or (question.reviewer == "ben" and question.pair):
            del answers[question.id]
    (row,) = new_pairs(key, checked(key, answers))
    assert (row["chosen"][0]["content"], row["reviewers"]) == ("On its way, 0.", ["anna", "ben"])
    assert row["agreement"] == pytest.approx(2 / 3)


def test_scores_are_means_over_the_reviewers_who_answered() -> None:
    key = make_key(2, settings={"repeats": 0}, gold=0)
    answers = given(key, anna=lambda q: "new", ben=lambda q: "old")
    lost = next(question.id for question in key.of("ben") if question.pair == 1)
    del answers[lost]
    scores = [row["score"] for row in collect(key, answers, accept_open=True)["rows"]]
    assert np.allclose(scores, [0.5, 1.0])
