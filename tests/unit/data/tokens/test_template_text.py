"""What a template cannot take is given to it as it can, and said: content, dates, system turns."""

from datetime import date
from typing import Any

import pytest

from preflow.config.base import Rendering
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.row_counts import RowCounts, template_notes
from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs
from preflow.errors import TemplateError
from tests.unit.data.tokens.tokenizers import CHATML, make_tokenizer

#: As templates of models that also see pictures: content is a list of parts.
PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURN = (
    "{% if m['role'] != 'system' %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}"
)
DROPS = (
    "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + DROPS
CLOCK = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}"
CHAT = (Message("user", "Hi."), Message("assistant", "Hello."))
SYSTEM = Message("system", "Be kind.")


def text(template: str, messages: tuple[Message, ...] = CHAT, **rendering: Any) -> str:
    tokenizer = make_tokenizer(template)
    rendered = Renderer(tokenizer, Rendering(**rendering)).conversation(messages)
    assert rendered is not None
    return str(tokenizer.decode(rendered.input_ids))


def test_content_is_given_in_parts_to_a_template_that_takes_no_text() -> None:
    assert text(PARTS) == "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>"


def test_a_template_that_adds_to_the_list_of_parts_gets_parts_where_text_is_an_error() -> None:
    first = PARTS.replace("{% for c in m['content'] %}", "{% for c in [] + m['content'] %}")
    assert first != PARTS
    assert text(first) == text(PARTS)


def test_a_template_that_writes_no_content_is_refused() -> None:
    with pytest.raises(TemplateError, match="does not write what turns say, neither from text nor from parts"):
        text("{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_end|>{% endfor %}")


def test_a_template_that_fails_is_one_error_before_any_row() -> None:
    with pytest.raises(TemplateError, match=r"refuses a conversation of user, assistant: .*concatenate"):
        Renderer(make_tokenizer("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}"), "chat")


def test_a_clock_is_pinned_to_one_date_or_to_the_recipes() -> None:
    assert text(CLOCK + CHATML).startswith("Today: 26 Jul 2024\n<|im_start|>")
    assert text(CLOCK + CHATML, template_date=date(2025, 1, 31)).startswith("Today: 31 Jan 2025\n<|im_start|>")


def test_a_recipes_date_is_given_as_date_string_too() -> None:
    template = "{{ 'On ' + date_string | default('no day') + '. ' }}" + CHATML
    assert text(template).startswith("On no day. ")
    assert text(template, template_date=date(2025, 1, 31)).startswith("On 31 Jan 2025. ")


def test_the_date_is_said_only_where_a_template_writes_one() -> None:
    dates = [Renderer(make_tokenizer(each), "chat").text for each in (CLOCK + CHATML, CHATML)]
    assert [each and each.date for each in dates] == [date(2024, 7, 26), None]


def test_a_date_in_a_format_that_the_template_computes_is_refused() -> None:
    with pytest.raises(TemplateError, match="in a format that it computes"):
        text("{{ strftime_now('%d' + ' %b') }}" + CHATML)


def test_a_template_that_begins_with_a_line_break_keeps_it_under_a_pinned_clock() -> None:
    assert text("\n" + CLOCK + CHATML).startswith("\nToday: 26 Jul 2024\n")


@pytest.mark.parametrize("template", [DROPS, REFUSES])
@pytest.mark.parametrize(
    ("setting", "user", "reason"),
    [
        ("auto", "Be kind.\n\nHi.", "system_in_user_turn"),
        ("user", "Be kind.\n\nHi.", "system_in_user_turn"),
        ("drop", "Hi.", "system_turn_dropped"),
    ],
)
def test_a_system_turn_that_the_template_has_no_place_for_is_counted_by_row(
    template: str, setting: str, user: str, reason: str
) -> None:
    tokenizer = make_tokenizer(template)
    renderer = Renderer(tokenizer, Rendering(system_turn=setting))  # type: ignore[arg-type]
    rows = [Demonstration((SYSTEM, *CHAT), Source("d", 1)), Demonstration(CHAT, Source("d", 2))]
    (first, second), counts = tokenize_demonstrations(rows, renderer, 1000, "drop")
    start = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>"
    assert tokenizer.decode(first.input_ids) == start.format(user)
    assert tokenizer.decode(second.input_ids) == start.format("Hi.")
    assert dict(counts.changed) == {reason: 1}
    assert counts.examples == {reason: ["d:1"]}
    pairs = [Pair((SYSTEM, CHAT[0]), (CHAT[1],), (Message("assistant", "No."),), Source("p", 1))]
    assert dict(tokenize_pairs(pairs, renderer, 1000, "drop")[1].changed) == {reason: 1}


def test_a_system_turn_that_the_template_writes_stays_there_unless_the_recipe_says_otherwise() -> None:
    rows = [Demonstration((SYSTEM, *CHAT), Source("d", 1))]
    tokenizer = make_tokenizer(CHATML)
    (kept,), counts = tokenize_demonstrations(rows, Renderer(tokenizer, "chat"), 1000, "drop")
    assert str(tokenizer.decode(kept.input_ids)).startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    assert not counts.changed
    (moved,), _ = tokenize_demonstrations(rows, Renderer(tokenizer, Rendering(system_turn="user")), 1000, "drop")
    assert "<|im_start|>user\nBe kind.\n\nHi.<|im_end|>" in str(tokenizer.decode(moved.input_ids))


def test_each_thing_that_a_template_did_is_said_with_its_remedy() -> None:
    counts = RowCounts(rows_in=3, used=3)
    counts.change("system_in_user_turn", Source("d", 1))
    counts.change("turns_removed", Source("d", 2))
    ((reason, note),) = template_notes(counts)
    assert reason == "system_in_user_turn"
    assert note.startswith("1 of 3 rows (system_in_user_turn): ")
    assert "system_turn: drop" in note


def test_an_end_that_the_template_leaves_out_of_the_last_turn_is_learnt_once_in_each() -> None:
    """As Qwen1.5's: only turns that another follows are closed."""
    open_ended = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
        "{% if not loop.last or add_generation_prompt %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer(open_ended)
    rendered = Renderer(tokenizer, "chat").conversation((*CHAT, *CHAT))
    assert rendered is not None
    learnt = [token for token, inside in zip(rendered.input_ids, rendered.response_mask, strict=True) if inside]
    assert tokenizer.decode(learnt) == "Hello.<|im_end|>Hello.<|im_end|>"


def test_a_token_that_marks_the_end_ends_answers_though_the_tokenizer_does_not_call_it_special() -> None:
    from tokenizers import AddedToken

    tokenizer = make_tokenizer(CHATML.replace("<|im_end|>", "<|done|>"), "</s>")
    tokenizer.add_tokens([AddedToken("<|done|>", special=False)])
    renderer = Renderer(tokenizer, "chat")
    assert renderer.closing_id == tokenizer.convert_tokens_to_ids("<|done|>")
    rendered = renderer.conversation(CHAT)
    assert rendered is not None
    assert str(tokenizer.decode(rendered.input_ids)).endswith("Hello.<|done|>")
