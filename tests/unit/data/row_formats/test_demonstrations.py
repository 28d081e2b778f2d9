"""Ways in which public files write demonstrations, and columns that change what a row means."""

from typing import Any

import pytest

from preflow.config.validation import RowReading
from preflow.data.row_formats.problems import RowProblem
from tests.unit.data.row_formats.reading import problem, said, shown

HI, HELLO = ("user", "Hi"), ("assistant", "Hello")
U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SAME: list[dict[str, Any]] = [
    {"prompt": "Hi", "response": "Hello"},
    {"question": "Hi", "answer": "Hello"},
    {"query": "Hi", "response": "Hello"},
    {"Question": "Hi", "Answer": "Hello"},
    {"instruction": "Hi", "output": "Hello"},
    {"instruction": "Hi", "input": None, "output": "Hello", "prompt": "### Instruction: Hi"},
    {"instruction": "", "input": "Hi", "output": "Hello"},
    {"instruction": "Hi", "input": "nan", "output": "Hello"},
    {"prompt": "Hi", "completion": "Hello", "system": None, "tools": "[]", "images": []},
    {"conversation": [{"from": "human", "value": "Hi"}, {"from": "chatgpt", "value": "Hello"}]},
    {"conversations": [{"from": "User", "value": "Hi"}, {"from": "Assistant", "value": "Hello"}]},
    {
        "messages": [
            {**U, "from": None, "value": None},
            {"role": None, "content": None, "from": "gpt", "value": "Hello"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "model", "content": "Hello"},
        ]
    },
    {"messages": [U, {"role": "bot", "content": "Hello"}]},
    {"conversations": [{"input": "Hi", "output": "Hello"}]},
    {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'},
    {"messages": "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': \"Hello\", 'name': None}]"},
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Hello"},
    {"prompt": "Hi", "completion": "Hello<|im_end|>\n"},
    {"prompt": "Hi", "completion": "Hello</s></s>"},
    {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]},
    {"contents": "of a book", "prompt": "Hi", "completion": "Hello"},
    {"problem": "Hi", "solution": "Hello", "answer": "1"},
    {"messages": [], "prompt": "Hi", "completion": "Hello"},
    {"messages": "[]", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
]


@pytest.mark.parametrize("values", SAME)
def test_columns_and_roles_of_every_name_give_the_same_rows(values: dict[str, Any]) -> None:
    row, _ = shown(values)
    assert [(role, text.strip()) for role, text in said(row)] == [HI, HELLO]


def test_a_system_turn_has_many_names() -> None:
    for values in (
        {"messages": [{"role": "developer", "content": "Be kind."}, U, A]},
        {"system_prompt": "Be kind.", "messages": [U, A]},
        {"system": "Be kind.", "instruction": "Hi", "output": "Hello"},
        {"systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]}, "contents": [U, A]},
    ):
        assert said(shown(values)[0]) == [("system", "Be kind."), HI, HELLO]


def test_history_comes_before_the_instruction_and_is_context() -> None:
    row, _ = shown({"instruction": "And?", "input": "Now", "output": "Bye", "history": [["Hi", "Hello"]]})
    assert said(row) == [HI, HELLO, ("user", "And?\nNow"), ("assistant", "Bye")]
    assert row.context == 3


@pytest.mark.parametrize(
    "flag",
    [
        {"weight": 0},
        {"train": False},
        {"masked": True},
        {"loss": "false"},
        {"weight": 0.0},
        {"train_on_turn": False},
        {"label": False},
        {"is_desirable": "false"},
        {"is_correct": 0},
    ],
)
def test_a_turn_that_is_not_to_be_learnt_is_context(flag: dict[str, Any]) -> None:
    row, notes = shown({"messages": [U, {**A, **flag}, U, {**A, "weight": 1}]})
    assert row.masked == (1,)
    assert notes.turn_keys == set()
    row, _ = shown({"messages": [U, A, U, {**A, **flag}]})
    assert (said(row), row.masked) == ([HI, HELLO], ())  # what follows the last answer to learn changes no loss
    assert problem("demonstrations", {"messages": [U, {**A, **flag}]})[0] == "nothing_to_train"
    both = [{"input": "Hi", "output": "Hello", **flag}, {"input": "Hi", "output": "Hello"}]
    row, notes = shown({"conversation": both})  # a turn that holds a question with its answer
    assert (row.masked, notes.turn_keys) == ((1,), set())


def test_a_weight_between_none_and_all_is_named_as_not_used() -> None:
    row, notes = shown({"messages": [U, {**A, "weight": 0.5}]})
    assert (row.masked, notes.turn_keys) == ((), {"weight"})


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [U, {**A, "reasoning_content": "A greeting."}]},
        {"messages": [U, {**A, "thinking": "A greeting."}]},
        {"messages": [U, {"role": "assistant", "content": [{"type": "thinking", "thinking": "A greeting."},
                                                          {"type": "text", "text": "Hello"}]}]},
        {"prompt": "Hi", "completion": "Hello", "reasoning_content": "A greeting."},
        {"conversation": [{"input": "Hi", "output": "Hello", "thinking": "A greeting."}]},
    ],
)  # fmt: skip
def test_thoughts_stay_beside_the_answer(values: dict[str, Any]) -> None:
    row, notes = shown(values)
    assert (said(row), row.messages[1].reasoning) == ([HI, HELLO], "A greeting.")
    assert "reasoning_kept" in notes.changed
    assert row.messages[1].to_json()["reasoning_content"] == "A greeting."


@pytest.mark.parametrize("column", ["is_correct", "accepted", "is_accepted"])
def test_an_answer_that_was_found_right_is_an_ordinary_demonstration(column: str) -> None:
    row, notes = shown({"prompt": "Hi", "completion": "Hello", column: True})
    assert said(row) == [HI, HELLO]
    assert notes.columns == ()


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "label": False}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "kto_tag": "False"}),
    ("undesirable_answer", {"messages": [U, A], "is_desirable": 0}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "thumbs_up": False}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "label": -1}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "chosen": False, "rejected": True}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "rejected": True}),
    ("nothing_to_train", {"prompt": "Hi", "completion": "Hello", "loss_weight": 0}),
    ("nothing_to_train", {"prompt": "Hi", "completion": "Hello", "is_correct": False}),
    ("nothing_to_train", {"question": "Hi", "answer": "Hello", "accepted": "false"}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "label": "f"}),
    ("undesirable_answer", {"prompt": "Hi", "completion": "Hello", "kto_tag": "Negative"}),
    ("wrong_type", {"prompt": "Hi", "completion": "Hello", "kto_tag": "meh"}),
    ("single_verdict", {"prompt": "Hi", "completion": "Hello", "label": True}),
    ("single_verdict", {"prompt": "Hi", "completion": "Hello", "is_desirable": "positive"}),
    ("needs_media", {"messages": [U, A], "images": ["a.png"]}),
    ("needs_media", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, A]}),
    ("needs_tools", {"messages": [U, {**A, "function_call": {"name": "book"}}]}),
    ("needs_tools", {"messages": [U, {"role": "tool", "content": "7"}, A]}),
    ("needs_tools", {"messages": [U, A], "tools": '[{"name": "clock"}]'}),
    ("wrong_kind", {"messages": [U, A], "rejected_response": "What?"}),
    ("wrong_kind", {"query": "Hi", "response": "Hello", "rejected_response": "What?"}),
    ("undesirable_answer", {"prompt": "Hi", "response": "Hello", "chosen": False}),
    ("wrong_kind", {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}),
    ("written_null", {"prompt": "Hi", "completion": "nan"}),
    ("written_null", {"prompt": "Hi", "completion": " N/A "}),
    ("turns_as_text", {"messages": "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Hello'}]"}),
    ("control_tokens", {"prompt": "Hi", "completion": "Hello<|im_end|>\n<|im_start|>user\nBye"}),
    ("control_tokens", {"prompt": "<s>[INST] Hi [/INST]", "completion": "Hello"}),
    ("control_tokens", {"prompt": "Hi", "completion": "Hello\n\nHuman: And?\n\nAssistant: Bye"}),
    ("control_tokens", {"messages": [{"role": "user", "content": "\n\nHuman: Hi\n\nAssistant: Yo\n\nHuman: And?"}, A]}),
    ("turns_as_text", {"prompt": "Hi", "completion": "array([{'role': 'assistant'\n 'content': 'x'}], dtype=object)"}),
    ("needs_media", {"messages": [U, A], "videos": ["a.mp4"]}),
    ("needs_media", {"messages": [U, {**A, "audios": ["a.wav"]}]}),
    ("needs_tools", {"messages": [U, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}, A]}),
    ("unfinished_answer", {"prompt": "Hi", "completion": "Hel", "finished": False}),
    ("unfinished_answer", {"prompt": "Hi", "completion": "Hel", "finish_reason": "length"}),
    ("unfinished_answer", {"messages": [U, {**A, "truncated": True}]}),
    ("unfinished_answer", {"prompt": "Hi", "completion": "Hel", "finish_reason": "MAX_OUTPUT_TOKENS"}),
    ("wrong_type", {"instruction": "Hi", "output": "Hello", "history": "User said hi"}),
    ("needs_media", {"messages": [{"role": "user", "content": [{"type": ["x"], "text": "Hi"}]}, A]}),
    ("wrong_kind", {"chosen": [U, A], "rejected": [U, A], "chat": [{"role": ["user"], "content": "Hi"}]}),
    ("control_tokens", {"prompt": "Hi", "completion": "Hello\n### Human: And?\n### Assistant: Bye"}),
    ("nothing_to_train", {"prompt": "Hi", "completion": "Hello", "weight": 0}),
    ("wrong_type", {"prompt": "Hi", "completion": "Hello", "weight": -1}),
    ("wrong_type", {"messages": [U, {**A, "weight": "-1"}]}),
    ("needs_tools", {"contents": [U, {"role": "model", "parts": [{"functionCall": {"name": "book"}}]}]}),
    ("needs_media", {"contents": [{"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"data": "eA"}}]}, A]}),
    ("blank_text", {"messages": []}),
    ("text_alone", {"text": "Once upon a time"}),
]


@pytest.mark.parametrize(("finding", "values"), REFUSED)
def test_a_row_that_means_something_else_is_refused_by_name(finding: str, values: dict[str, Any]) -> None:
    assert problem("demonstrations", values)[0] == finding


def test_what_only_looks_like_it_is_not_refused() -> None:
    code = '[{"from": "Rome", to: "Oslo"}]'
    for answer in ("None.", "nano", "[1, 2, 3]", '{"role": "admin"}', "<s>old</s> new", "Human: a word", "a</b>", code):
        assert said(shown({"prompt": "Hi", "completion": answer})[0])[1] == ("assistant", answer)
    script = {"role": "assistant", "content": "A scene:\n\nHuman: Hi\n\nRobot: Hello"}  # turns are parted already
    assert said(shown({"messages": [U, script]})[0])[1] == ("assistant", script["content"])
    nulls = {"role": "user", "content": [{"type": None, "text": "Hi", "image": None}]}
    pair = {"chosen": [U, A], "rejected": [U, U], "messages": [U, {"role": "Assistant", "content": "Hello"}]}
    assert said(shown({"messages": [nulls, A]})[0]) == said(shown(pair)[0]) == [HI, HELLO]
    row, notes = shown({"prompt": "Hi", "completion": "Hello", "label": "greeting", "weight": 3})
    assert (said(row), notes.columns) == ([HI, HELLO], ("label", "weight"))


def test_favourable_rows_train_where_the_recipe_wants_it() -> None:
    values = {"prompt": "Hi", "completion": "Hello", "label": True}
    assert said(shown(values, desirable_rows="demonstrations")[0]) == [HI, HELLO]
    assert problem("demonstrations", {**values, "label": False}, desirable_rows="demonstrations")[0] != "fine"


def test_a_row_without_its_verdict_is_not_learnt_where_the_recipe_says_that_rows_have_one() -> None:
    values = {"prompt": "Hi", "completion": "Hello", "label": None}
    with pytest.raises(RowProblem, match="the row has no verdict"):
        shown(values, RowReading(format="answer with a verdict"), desirable_rows="demonstrations")
    assert said(shown(values)[0]) == [HI, HELLO]


def test_columns_and_keys_of_turns_that_are_not_used_are_named() -> None:
    _, notes = shown(
        {"messages": [{**U, "name": "Ann"}, {**A, "id": None}], "topic": "greetings", "source": "web", "x": ""}
    )
    assert (notes.columns, notes.turn_keys) == (("topic",), {"name"})
    assert notes.used == (("messages", "messages"), ("source", "source"))
