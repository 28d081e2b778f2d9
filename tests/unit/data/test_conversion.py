"""Every way of writing a row comes to the same internal form; every defect has its name."""

from typing import Any

import pytest

from preflow.data.conversion import RowProblem, to_demonstration, to_pair
from preflow.data.files.raw_rows import RawRow
from preflow.data.rows import Demonstration, Message, Pair, Source

U, A, B = Message("user", "Hi"), Message("assistant", "Hello"), Message("assistant", "What?")
u, a, b = U.to_json(), A.to_json(), B.to_json()
SYSTEM = {"role": "system", "content": ""}
HERE = Source("f.jsonl", 7)


def raw(**values: Any) -> RawRow:
    return RawRow("f.jsonl", 7, values)


@pytest.mark.parametrize(
    ("values", "context"),
    [
        ({"prompt": "Hi", "completion": "Hello", "id": 3}, 1),
        ({"prompt": [u], "completion": [a]}, 1),
        ({"prompt": "Hi", "completion": [a]}, 1),
        ({"messages": [u, a]}, 0),
        ({"messages": [u, a], "prompt": None}, 0),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, 0),
    ],
)
def test_demonstrations_in_every_form(values: dict[str, Any], context: int) -> None:
    assert to_demonstration(raw(**values)) == Demonstration((U, A), HERE, context)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", "score": 1.0},
        {"prompt": [u], "chosen": [a], "rejected": [b]},
        {"prompt": [u], "chosen": "Hello", "rejected": [b]},
        {"chosen": [u, a], "rejected": [u, b]},
        {"prompt": "Hi", "chosen": [u, a], "rejected": [u, b]},
        {"prompt": [u], "chosen": [u, a], "rejected": [u, b]},
    ],
)
def test_pairs_in_every_form(values: dict[str, Any]) -> None:
    assert to_pair(raw(**values)) == Pair((U,), (A,), (B,), HERE)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Hi", "completion": "Hello", "system": "Be kind."},
        {"messages": [u, a], "system": "Be kind."},
        {"messages": [{"role": "system", "content": "Be kind."}, u, a], "system": "Be kind.", "tools": "[]"},
    ],
)
def test_a_system_column_is_a_system_turn(values: dict[str, Any]) -> None:
    messages = to_demonstration(raw(**values)).messages
    assert messages == (Message("system", "Be kind."), U, A)


@pytest.mark.parametrize(
    "values", [{"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}, {"chosen": [u, a], "rejected": [u, b]}]
)
def test_a_system_column_leads_the_prompt_of_a_pair(values: dict[str, Any]) -> None:
    pair = to_pair(raw(**values, system="Be kind."))
    assert pair == Pair((Message("system", "Be kind."), U), (A,), (B,), HERE)


def test_the_shared_prefix_of_conversations_is_the_prompt() -> None:
    row = to_pair(raw(chosen=[SYSTEM, u, a, u, a], rejected=[SYSTEM, u, a, u, b]))
    assert row == Pair((Message("system", ""), U, A, U), (A,), (B,), HERE)


def test_equal_conversations_keep_their_last_turn_as_the_answer() -> None:
    assert to_pair(raw(chosen=[u, a], rejected=[u, a])) == Pair((U,), (A,), (A,), HERE)


DEFECTS: list[tuple[str, dict[str, Any]]] = [
    ("needs_tools", {"prompt": "Hi", "completion": "Hello", "tools": [{"name": "clock"}]}),
    ("needs_tools", {"messages": [u, {**a, "tool_calls": [{"name": "clock"}]}]}),
    ("prompt_differs", {"messages": [{"role": "system", "content": "Be kind."}, u, a], "system": "Be short."}),
    ("wrong_type", {"prompt": "Hi", "completion": "Hello", "system": 7}),
    ("missing_column", {"prompt": "Hi", "reply_text": "Hello"}),
    ("missing_column", {}),
    ("missing_value", {"prompt": "Hi", "completion": None}),
    ("wrong_type", {"prompt": True, "completion": "Hello"}),
    ("wrong_type", {"prompt": "Hi", "completion": 4}),
    ("wrong_type", {"messages": "Hi"}),
    ("wrong_type", {"messages": ["Hi"]}),
    ("wrong_type", {"messages": [{"role": "user", "content": ["Hi"]}, a]}),
    ("bad_encoding", {"prompt": "Hi \ud800", "completion": "Hello"}),
    ("bad_role", {"messages": [{"role": "narrator", "content": "Hi"}, a]}),
    ("bad_role", {"messages": [{"content": "Hi"}, a]}),
    ("bad_order", {"messages": [a]}),
    ("bad_order", {"messages": [u, u, a]}),
    ("bad_order", {"messages": [u, a, a]}),
    ("bad_order", {"messages": [u, SYSTEM, a]}),
    ("ends_on_user", {"messages": [u, a, u]}),
    ("ends_on_user", {"messages": [SYSTEM]}),
    ("blank_text", {"messages": []}),
    ("blank_text", {"prompt": "Hi", "completion": " \n\t"}),
    ("blank_text", {"prompt": "\u200b\ufeff", "completion": "Hello"}),
    ("blank_text", {"prompt": "Hi", "completion": ""}),
]


@pytest.mark.parametrize(("finding", "values"), DEFECTS)
def test_a_defect_of_a_demonstration_has_its_name(finding: str, values: dict[str, Any]) -> None:
    with pytest.raises(RowProblem) as problem:
        to_demonstration(raw(**values))
    assert problem.value.finding == finding


PAIR_DEFECTS: list[tuple[str, dict[str, Any]]] = [
    ("missing_column", {"prompt": "Hi", "chosen": "Hello"}),
    ("missing_column", {"chosen": "Hello", "rejected": "What?"}),
    ("missing_value", {"prompt": "Hi", "chosen": None, "rejected": "What?"}),
    ("blank_text", {"prompt": "Hi", "chosen": "", "rejected": "What?"}),
    ("blank_text", {"prompt": "Hi", "chosen": "Hello", "rejected": "\u2028"}),
    ("prompt_differs", {"chosen": [u, a], "rejected": [{"role": "user", "content": "Ho"}, b]}),
    ("prompt_differs", {"prompt": [u], "chosen": [u, a], "rejected": [b]}),
    ("prompt_differs", {"prompt": "Ho", "chosen": [u, a], "rejected": [u, b]}),
    ("bad_order", {"chosen": [u, a, a], "rejected": [u, b]}),
    ("ends_on_user", {"chosen": [u, a, u], "rejected": [u, b, u]}),
    ("bad_order", {"prompt": [u, a], "chosen": "Hello", "rejected": "What?"}),
    ("ends_on_user", {"prompt": "Hi", "chosen": [a, u], "rejected": "What?"}),
]


@pytest.mark.parametrize(("finding", "values"), PAIR_DEFECTS)
def test_a_defect_of_a_pair_has_its_name(finding: str, values: dict[str, Any]) -> None:
    with pytest.raises(RowProblem) as problem:
        to_pair(raw(**values))
    assert problem.value.finding == finding


def test_a_problem_says_what_was_got_where_and_what_was_expected() -> None:
    with pytest.raises(RowProblem, match=r"messages\[1\] has role 'narrator', expected system, user, assistant"):
        to_demonstration(raw(messages=[u, {"role": "narrator", "content": "x"}]))


def test_a_malformed_line_carries_the_parsers_message() -> None:
    with pytest.raises(RowProblem, match="Expecting value"):
        to_pair(RawRow("f", 1, {"line": "{"}, malformed="Expecting value: line 1"))


def test_rows_survive_the_way_through_json() -> None:
    pair = Pair((U,), (A,), (B,), HERE)
    shown = Demonstration((U, A, U, B), HERE, context=3)
    assert Pair.from_json(pair.to_json()) == pair
    assert Demonstration.from_json(shown.to_json()) == shown
