"""Ways in which public files write pairs."""

import re
from typing import Any

import pytest

from preflow.config.validation import ReadingSettings, RowReading
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.verdicts import join_verdicts
from tests.unit.data.row_formats.reading import pairs, problem, said

U, A, B = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"), ("assistant", "What?"))
)
WHOLE = ([("user", "Hi")], "Hello", "What?")
SAME: list[dict[str, Any]] = [
    {"messages": [U], "chosen": A, "rejected": B},
    {"messages": [U], "chosen": "Hello", "rejected": [B]},
    {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"},
     "rejected": {"from": "gpt", "value": "What?"}},
    {"question": "Hi", "chosen": "Hello", "rejected": "What?"},
    {"instruction": "Hi", "input": "", "chosen_response": "Hello", "rejected_response": "What?"},
    {"input": "Hi", "preferred": "Hello", "dispreferred": "What?"},
    {"messages": [U, A], "rejected_response": "What?"},
    {"messages": [U, A], "rejected_messages": [U, B]},
    {"input": {"messages": [U], "tools": [], "parallel_tool_calls": True}, "preferred_output": [A],
     "non_preferred_output": [B]},
    {"prompt": "Hi", "response_a": "Hello", "response_b": "What?", "winner": "model_a"},
    {"prompt": "Hi", "response_a": "What?", "response_b": "Hello", "winner": "b", "model_a": "x", "model_b": "y"},
    {"prompt": "Hi", "response_a": "What?", "response_b": "Hello", "winner": "y", "model_a": "x", "model_b": "y"},
    {"prompt": '["Hi"]', "response_a": '["Hello"]', "response_b": '["What?"]', "winner_model_a": 1, "winner_model_b": 0,
     "winner_tie": 0},
    {"conversation_a": [U, A], "conversation_b": [U, B], "winner": "model_a"},
    {"question": "Hi", "answer_0": "What?", "answer_1": "Hello", "score_0": -0.5, "score_1": 0.5},
    {"prompt": "Hi", "response_0": "What?", "response_1": "Hello", "better_response_id": 1},
    {"prompt": "Hi", "prompt_id": "7", "chosen": [U, A], "rejected": [U, B], "messages": [U, A], "score_chosen": 8.0,
     "score_rejected": 3.0},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello", "rejected": " What?"},
    {"instruction": "Hi", "output": ["Hello", "What?"]},
    {"query": "Hi", "response": "Hello", "rejected_response": "What?"},
    {"Prompt ": "Hi", "CHOSEN": "Hello", "Rejected Response": "What?"},
    {"prompt": "Hi", "chosen": ["Hello"], "rejected": ["What?"]},
    {"prompt": "Hi", "chosen": "array([{'content': 'Hello', 'role': 'assistant'}], dtype=object)",
     "rejected": "[{'content': 'What?', 'role': 'assistant'}]"},
    {"prompt": "Hi", "chosen": "Hello<|return|>", "rejected": "What?<|eot|>", "chosen_finished": True},
    {"prompt": "Hi", "chosen": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]',
     "rejected": "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'What?'}]"},
]  # fmt: skip


@pytest.mark.parametrize("values", SAME)
def test_every_way_gives_the_same_pair(values: dict[str, Any]) -> None:
    (row,), _ = pairs(values)
    assert said(row) == WHOLE


@pytest.mark.parametrize(
    ("finding", "values"),
    [
        ("no_preference", {"prompt": "Hi", "response_a": "Hello", "response_b": "What?", "winner": "tie (bothbad)"}),
        ("no_preference", {"prompt": "Hi", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": 1}),
        ("no_preference", {"prompt": "Hi", "responses": ["a", "b"], "scores": [2, 2]}),
        ("wrong_type", {"prompt": "Hi", "response_a": "Hello", "response_b": "What?", "winner": "left-ish"}),
        ("missing_column", {"prompt": "Hi", "response_a": "Hello", "response_b": "What?"}),
        ("missing_column", {"prompt": "Hi", "completion": "Hello"}),
        ("single_verdict", {"prompt": "Hi", "completion": "Hello", "label": True}),
        ("single_verdict", {"prompt": "Hi", "completion": "Hello", "chosen": True}),
        ("written_null", {"prompt": "Hi", "chosen": "Hello", "rejected": "nan"}),
        ("nothing_to_train", {"messages": [U], "chosen": {**A, "weight": 0}, "rejected": B}),
        ("needs_media", {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", "image": "a.png"}),
        ("unfinished_answer", {"messages": [U], "chosen": {**A, "finished": False}, "rejected": B}),
        ("unfinished_answer", {"prompt": "Hi", "chosen": "Hello", "rejected": "Wh", "rejected_finished": False}),
        ("unfinished_answer", {"prompt": "Hi", "chosen": "Hel", "rejected": "What?", "finish_reason_chosen": "length"}),
        ("unfinished_answer", {"prompt": "Hi", "response_a": "Hel", "response_b": "b", "winner": "a", "finished_a": 0}),
        ("missing_value", {"prompt": "Hi", "response_a": "a", "response_b": "b", "winner": None}),
        ("no_preference", {"prompt": "Hi", "response_a": "a", "response_b": "b", "winner_model_a": 1,
                           "winner_model_b": 1}),
        ("missing_value", {"prompt": "Hi", "responses": ["a", "b"], "scores": [1, None]}),
        ("no_preference", {"prompt": "Hi", "answers": [{"text": "a", "score": 1},
                                                       {"text": "Hel", "score": 2, "finish_reason": "length"}]}),
        ("wrong_type", {"prompt": "Hi", "response_a": "a", "response_b": "b", "model_a": "x", "model_b": "x",
                        "winner": "x"}),
        ("bad_order", {"messages": [A], "chosen": "Hello", "rejected": "What?", "system": "Be kind"}),
        ("wrong_type", {"prompt": "Hi", "completion": "Hello", "kto_tag": "meh"}),
        ("single_verdict", {"prompt": "Hi", "completion": "Hello", "label": -1}),
    ],
)  # fmt: skip
def test_a_row_that_is_no_pair_is_refused_by_name(finding: str, values: dict[str, Any]) -> None:
    assert problem("preferences", values)[0] == finding


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("preferences", {"chosen": "Hello", "rejected": "What?"}, "without a prompt"),
        ("preferences", {"prompt": "Hi", "x": 1}, "expected chosen and rejected beside 'prompt'"),
        (
            "preferences",
            {"question": "Hi", "answer": "Hello"},
            "expected chosen and rejected beside 'question'; demonstrations belong in sft.dataset",
        ),
        ("preferences", {"prompt": "Hi", "chosen": "Hello"}, "no column 'rejected'; got prompt, chosen"),
        ("demonstrations", {"question": "Hi"}, "an answer (completion, response, solution, answer, ...) beside"),
        ("demonstrations", {"output": "Hi"}, "expected a prompt (prompt, question, query, instruction, ...) beside"),
        ("demonstrations", {"x": "Hi"}, "got x; expected messages, conversations, conversation, or a prompt with"),
    ],
)
def test_no_message_expects_what_was_given(kind: str, values: dict[str, Any], expected: str) -> None:
    name, detail = problem(kind, values)
    assert name == "missing_column"
    assert expected in detail
    given = detail.partition("expected ")[2].partition(" beside")[0]
    assert not {*values} & {*re.findall("[a-z]+", given)}


def test_the_columns_of_the_recipes_format_are_named_where_a_row_has_them_not() -> None:
    with pytest.raises(RowProblem, match=r"got prompt; expected the columns of format: ranking \(prompt -> prompt"):
        pairs({"prompt": "Hi"}, RowReading(format="ranking"))


def test_every_two_answers_of_a_ranking_are_a_pair_where_one_is_better() -> None:
    """Of scores 1, 5, 3 and 5 there are six pairs, one of them a tie."""
    rows, notes = pairs({"prompt": "Hi", "responses": ["a", "b", "c", "d"], "scores": [1, 5, 3, 5]})
    assert [said(row)[1:] for row in rows] == [("b", "c"), ("b", "a"), ("d", "c"), ("d", "a"), ("c", "a")]
    assert notes.made
    rows, _ = pairs({"prompt": "Hi", "completions": [{"response": "a", "rank": 2}, {"response": "b", "rank": 1}]})
    assert [said(row)[1:] for row in rows] == [("b", "a")]
    for names in (("prompt", "chosen", "rejected"), ("query", "response", "rejected_response")):
        rows, _ = pairs(dict(zip(names, ("Hi", "a", ["b", "c"]), strict=True)))
        assert [said(row)[1:] for row in rows] == [("a", "b"), ("a", "c")]


def test_several_differing_turns_are_read_as_the_recipe_says() -> None:
    more = [{"role": "user", "content": "More?"}]
    values = {"prompt": "Hi", "chosen": [U, A, *more, A], "rejected": [U, B, *more, B]}
    (first,), notes = pairs(values)
    assert (said(first), notes.changed) == (WHOLE, {"later_turns_left_out"})
    (every,), notes = pairs(values, multi_turn_answers="all")
    assert said(every) == ([("user", "Hi")], "Hello\nMore?\nHello", "What?\nMore?\nWhat?")
    assert notes.changed == {"several_turns_compared"}


def test_columns_that_hold_something_count_before_those_of_null() -> None:
    (row,), _ = pairs({"prompt": "Hi", "chosen": None, "rejected": None, "win": "Hello", "lose": "What?"})
    assert said(row) == WHOLE


def test_a_number_in_place_of_a_text_is_named() -> None:
    assert problem("demonstrations", {"question": "2+2", "answer": 4})[1] == (
        "'answer' is int, expected text, a turn or a list of turns"
    )


def test_answers_of_one_response_all_count() -> None:
    """A log-prob is that of the whole response, so a turn of it cannot be context."""
    values = {"prompt": "Hi", "chosen": [{**A, "weight": 0}, U, A], "rejected": B}
    assert problem("preferences", values, multi_turn_answers="all")[0] == "nothing_to_train"


@pytest.mark.parametrize("winner", ["response_2", "Response 2", "model_2", "2", 2, "output_2", "right", "gpt"])
def test_a_winner_is_named_by_number_column_or_model(winner: Any) -> None:
    (row,), _ = pairs({"prompt": "Hi", "output_1": "What?", "output_2": "Hello", "model_2": "gpt", "winner": winner})
    assert said(row) == WHOLE


@pytest.mark.parametrize(("scores", "found"), [((1, 9), "agree"), ((9, 1), "inverted"), ((5, 5), "tie")])
def test_a_verdict_is_compared_with_the_scores_beside_it(scores: tuple[int, int], found: str) -> None:
    two = {"prompt": "Hi", "response_a": "What?", "response_b": "Hello", "winner": "b"}
    _, notes = pairs({**two, "score_a": scores[0], "score_b": scores[1]})
    assert (notes.scores, notes.columns) == (found, ())
    _, notes = pairs({**two, "margin": -3})  # of the first over the second, perhaps: it says nothing
    assert (notes.scores, notes.columns) == (None, ("margin",))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"score_chosen": 8, "score_rejected": 3}, "agree"),
        ({"score_chosen": "3.0", "score_rejected": "8.0"}, "inverted"),
        ({"chosen_score": 5, "rejected_score": 5}, "tie"),
        ({"chosen-rating": 2, "rejected-rating": 4}, "inverted"),
        ({"margin": -1.5}, "inverted"),
        ({"rating": [4, 2]}, "agree"),
        ({"score_chosen": 8}, None),
        ({"score_chosen": None, "score_rejected": None}, None),
    ],
)
def test_scores_are_compared_with_what_the_columns_say(columns: dict[str, Any], found: str | None) -> None:
    _, notes = pairs({"prompt": "Hi", "chosen": "Hello", "rejected": "What?", **columns})
    assert notes.scores == found
    assert notes.columns == (("score_chosen",) if columns == {"score_chosen": 8} else ())


def test_rows_with_verdicts_are_joined_where_a_prompt_has_both() -> None:
    """One answer of each verdict to one prompt; the others stay as they are, in the order of the file."""
    verdicts = [("p", "good", True), ("q", "alone", True), ("p", "bad", False), ("p", "too many", False)]
    rows = [
        RawRow("f", number, {"prompt": prompt, "completion": text, "label": good, "topic": "t"})
        for number, (prompt, text, good) in enumerate(verdicts, 1)
    ]
    joined, *left = join_verdicts(rows, ReadingSettings())
    (pair,), notes = pairs(joined.values)
    assert (joined.row, said(pair)) == (3, ([("user", "p")], "good", "bad"))
    assert (notes.row_format, notes.made, notes.columns) == ("answer with a verdict", True, ("topic",))
    assert left == [rows[1], rows[3]]
    assert problem("preferences", left[0].values)[0] == "single_verdict"
