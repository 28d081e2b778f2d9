"""Which questions reviewers are asked, in which order."""

from collections import Counter

import pytest

from preflow.config.evaluation.review import ReviewSettings
from preflow.data.rows import Message, Pair, Source, content_id
from preflow.review.drawing import draw_questions, fit_pairs, gold_pairs, share
from preflow.review.key import ReviewPair
from tests.unit.review.keys import make_key, pair


def test_a_tenth_is_repeated_in_the_other_order_and_a_twentieth_is_gold() -> None:
    key = make_key(60, gold=share(0.05, 60))
    for name in key.reviewers:
        asked = key.of(name)
        assert Counter(question.kind for question in asked) == {"pair": 60, "repeat": 6, "gold": 3}
        order = {question.pair: question.new_first for question in asked if question.kind == "pair"}
        assert all(question.new_first != order[question.pair] for question in asked if question.kind == "repeat")
        assert sum(order.values()) == 30, "each model is A in half of the pairs"


def test_the_second_reviewer_sees_every_pair_in_the_other_order() -> None:
    key = make_key(20)
    anna, ben = ({q.pair: q.new_first for q in key.of(name) if q.kind == "pair"} for name in key.reviewers)
    assert all(anna[number] != ben[number] for number in range(20))
    assert [q.pair for q in key.of("anna") if q.kind == "pair"] != list(range(20)), "shuffled"


def test_a_seed_decides_order_and_places_and_names_are_random() -> None:
    pairs = [pair(number) for number in range(20)]
    first, again, other = (draw_questions(pairs, [], ["anna"], ReviewSettings(), seed) for seed in (1, 1, 2))
    shown = [[(q.pair, q.kind, q.new_first) for q in questions] for questions in (first, again, other)]
    assert shown[0] == shown[1] != shown[2]
    assert not {q.id for q in first} & {q.id for q in again}


def test_answers_that_differ_in_white_space_alone_are_no_pair() -> None:
    same = pair(3).model_copy(update={"old": " On its  way, 3.\n"})
    assert fit_pairs([pair(1), same, pair(2)], 60) == [pair(1), pair(2)]
    assert [each.prompt_id for each in fit_pairs([pair(n) for n in range(9)], 3)] == ["p0", "p4", "p8"]


@pytest.mark.parametrize(("fraction", "pairs", "expected"), [(0.1, 60, 6), (0.05, 4, 1), (0.0, 60, 0)])
def test_a_share_that_is_wanted_is_at_least_one(fraction: float, pairs: int, expected: int) -> None:
    assert share(fraction, pairs) == expected


def test_gold_pairs_have_other_prompts_where_there_are_and_one_turn_a_side() -> None:
    def row(text: str, chosen: tuple[Message, ...] = (Message("assistant", "yes"),)) -> Pair:
        return Pair((Message("user", text),), chosen, (Message("assistant", "no"),), Source("f", 1))

    asked = ReviewPair(prompt_id=content_id(row("one").prompt), cluster="c", prompt=(), new="a", old="b")
    turns = (Message("assistant", "yes"), Message("user", "and?"), Message("assistant", "yes"))
    rows = [row("one"), row("two"), row("three", turns), row("four", (Message("assistant", "no "),))]
    found = gold_pairs(rows, [asked], 1)
    assert [(each.turns[0].content, each.new, each.old) for each in found] == [("two", "yes", "no")]
    assert len(gold_pairs(rows, [asked], 2)) == 2, "the same prompt is better than no gold pair"
    assert gold_pairs([], [asked], 2) == []
