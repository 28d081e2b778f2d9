"""What is trained on is token for token what inference sees."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflow.data.rows import Message, to_json
from preflow.data.tokens.chat_template import Renderer, TokenizedConversation
from preflow.errors import TemplateError
from tests.unit.data.tokens.tokenizers import (
    CHATML,
    LLAMA,
    PLAIN,
    REWRITES_EARLIER,
    STRIPS_THINKING,
    THINKS_LAST,
    make_tokenizer,
)

TEXT = st.text(alphabet="ab \n,?.é<|", min_size=1, max_size=12).filter(lambda text: text.strip())


def turns(*contents: str, system: str | None = None) -> list[Message]:
    messages = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)]
    return ([Message("system", system)] if system is not None else []) + messages


def inference_ids(tokenizer: Any, messages: list[Message], **options: bool) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(to_json(messages), tokenize=True, return_dict=False, **options)
    return ids


def converse(renderer: Renderer, messages: Sequence[Message], context: int = 0) -> TokenizedConversation:
    """A conversation that the template leaves as it is."""
    rendered = renderer.conversation(messages, context)
    assert rendered is not None, "the template rewrites an earlier answer"
    return rendered


@pytest.mark.parametrize(("template", "eos"), [(CHATML, "<|im_end|>"), (LLAMA, "<|eot|>"), (PLAIN, "</s>")])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_prompt_is_what_inference_gives_the_model(template: str, eos: str, system: str | None) -> None:
    tokenizer = make_tokenizer(template, eos)
    messages = turns("hello", "yes", "how are you?", system=system)
    expected = inference_ids(tokenizer, messages, add_generation_prompt=True)
    assert Renderer(tokenizer, "chat").prompt_ids(messages) == expected


@pytest.mark.parametrize(("template", "eos", "after"), [(CHATML, "<|im_end|>", "\n"), (LLAMA, "<|eot|>", "")])
def test_conversation_is_the_templates_rendering_up_to_the_end_of_turn(template: str, eos: str, after: str) -> None:
    tokenizer = make_tokenizer(template, eos)
    rendered = converse(Renderer(tokenizer, "chat"), turns("hello", "I am fine."))
    whole = inference_ids(tokenizer, turns("hello", "I am fine."))
    assert rendered.input_ids + tokenizer(after, add_special_tokens=False)["input_ids"] == whole
    assert rendered.input_ids[-1] == tokenizer.eos_token_id


def masked_text(tokenizer: Any, rendered: TokenizedConversation) -> list[str]:
    """The trained-on pieces of a conversation, one string per run of positions."""
    pieces: list[list[int]] = []
    previous = False
    for token, counts in zip(rendered.input_ids, rendered.response_mask, strict=True):
        if counts and not previous:
            pieces.append([])
        if counts:
            pieces[-1].append(token)
        previous = counts
    return [tokenizer.decode(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("template", "eos", "end"),
    [(CHATML, "<|im_end|>", "<|im_end|>"), (CHATML, "</s>", "<|im_end|>"), (LLAMA, "<|eot|>", "<|eot|>")],
)
def test_mask_covers_every_answer_and_its_end_and_nothing_else(template: str, eos: str, end: str) -> None:
    tokenizer = make_tokenizer(template, eos)
    rendered = converse(Renderer(tokenizer, "chat"), turns("hello", "yes", "hello", "no", system="Be kind."))
    assert masked_text(tokenizer, rendered) == [f"yes{end}", f"no{end}"]


def test_context_turns_are_not_trained_on() -> None:
    tokenizer = make_tokenizer()
    rendered = converse(Renderer(tokenizer, "chat"), turns("a", "yes", "b", "no"), context=3)
    assert masked_text(tokenizer, rendered) == ["no<|im_end|>"]


def test_bos_appears_once() -> None:
    tokenizer = make_tokenizer(LLAMA, "<|eot|>")
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id, "the tokenizer would add a second one"
    ids = converse(Renderer(tokenizer, "chat"), turns("a", "b", "c", "d")).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_template_that_writes_bos_twice_is_refused() -> None:
    tokenizer = make_tokenizer("{{ bos_token }}" + LLAMA, "<|eot|>")
    with pytest.raises(TemplateError, match="BOS twice"):
        Renderer(tokenizer, "chat").prompt_ids(turns("a"))


def test_eos_is_added_where_the_template_ends_no_turn() -> None:
    tokenizer = make_tokenizer(PLAIN, "</s>")
    rendered = converse(Renderer(tokenizer, "chat"), turns("hello", "yes", "hello", "no"))
    assert tokenizer.decode(rendered.input_ids) == "user: hello\nassistant: yes\nuser: hello\nassistant: no</s>"
    assert masked_text(tokenizer, rendered) == [" yes", " no</s>"]


def test_generation_stops_at_the_templates_end_and_at_eos() -> None:
    tokenizer = make_tokenizer(CHATML, "</s>")
    renderer = Renderer(tokenizer, "chat")
    eos, end_of_turn = (tokenizer.convert_tokens_to_ids(token) for token in ("</s>", "<|im_end|>"))
    assert set(renderer.end_ids) == {eos, end_of_turn}
    assert renderer.closing_id == end_of_turn


def test_what_the_template_writes_after_the_end_of_turn_is_never_trained_on() -> None:
    # As Phi 3's: one end-of-turn token, then an end-of-text token that generation never reaches.
    tokenizer = make_tokenizer(CHATML + "{% if not add_generation_prompt %}</s>{% endif %}", "</s>")
    rendered = converse(Renderer(tokenizer, "chat"), turns("a", "yes"))
    assert masked_text(tokenizer, rendered) == ["yes<|im_end|>"]


def test_a_response_that_begins_with_a_line_break_keeps_the_prompt_of_inference() -> None:
    """The tokenizer merges "\\n\\n", so the rendering of the whole does not begin with the prompt's tokens."""
    tokenizer = make_tokenizer()
    messages = turns("hello", "\nyes")
    prompt = inference_ids(tokenizer, messages[:1], add_generation_prompt=True)
    assert inference_ids(tokenizer, messages)[: len(prompt)] != prompt, "the case is not the one meant"
    rendered = converse(Renderer(tokenizer, "chat"), messages)
    assert rendered.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(rendered.input_ids[len(prompt) :]) == "\nyes<|im_end|>"


def test_an_earlier_response_that_begins_with_a_line_break_is_trained_on_from_its_first_own_token() -> None:
    tokenizer = make_tokenizer()
    rendered = converse(Renderer(tokenizer, "chat"), turns("a", "\nyes", "b", "no"))
    assert masked_text(tokenizer, rendered) == ["yes<|im_end|>", "no<|im_end|>"]
    assert rendered.input_ids == inference_ids(tokenizer, turns("a", "\nyes", "b", "no"))[:-1]


def test_a_template_that_rewrites_earlier_turns_gives_no_mask_for_several_answers() -> None:
    """What inference gave the model at the first answer is not what the whole conversation holds."""
    tokenizer = make_tokenizer(REWRITES_EARLIER)
    renderer = Renderer(tokenizer, "chat")
    assert renderer.conversation(turns("hello", "yes", "hello", "no")) is None
    one = converse(renderer, turns("hello", "yes"))
    assert tokenizer.decode(one.input_ids) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    assert masked_text(tokenizer, one) == ["yes<|im_end|>"]


def test_a_template_that_drops_reasoning_gives_no_mask_only_where_an_earlier_answer_has_some() -> None:
    tokenizer = make_tokenizer(STRIPS_THINKING)
    renderer = Renderer(tokenizer, "chat")
    fine = converse(renderer, turns("a", "yes", "b", "<think>x</think>no"))
    assert masked_text(tokenizer, fine) == ["yes<|im_end|>", "<think>x</think>no<|im_end|>"]
    assert renderer.conversation(turns("a", "<think>x</think>yes", "b", "no")) is None


def test_a_template_that_adds_to_the_last_answer_alone_gives_no_mask_for_several_answers() -> None:
    """Inference answers with the empty thought, so an earlier answer without it would teach something else."""
    tokenizer = make_tokenizer(THINKS_LAST)
    renderer = Renderer(tokenizer, "chat")
    one = converse(renderer, turns("a", "yes"))
    assert masked_text(tokenizer, one) == ["<think>\n\n</think>\n\nyes<|im_end|>"]
    assert renderer.conversation(turns("a", "yes", "b", "no")) is None
    assert masked_text(tokenizer, converse(renderer, turns("a", "yes", "b", "no"), context=2))


def test_a_generation_prompt_that_the_answer_does_not_follow_is_refused() -> None:
    broken = CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\nSure: ' }}")
    assert broken != CHATML
    with pytest.raises(TemplateError, match="Sure"):
        Renderer(make_tokenizer(broken), "chat")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Message("assistant", "yes", reasoning="so"), "so\n</think>\n\nyes<|im_end|>"),
        (Message("assistant", "<think>\nso\n</think>\n\nyes"), "so\n</think>\n\nyes<|im_end|>"),
        (Message("assistant", "yes"), "\n</think>\n\nyes<|im_end|>"),
    ],
)
def test_thoughts_that_the_generation_prompt_opens_are_closed_in_the_answer(answer: Message, expected: str) -> None:
    """As DeepSeek-R1's distills: the prompt opens the block, and the template writes answers without any."""
    opens = STRIPS_THINKING.replace("message['content'] if loop.last else ", "").replace(
        "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}"
    )
    tokenizer = make_tokenizer(opens)
    renderer = Renderer(tokenizer, "chat")
    rendered = converse(renderer, [*turns("a"), answer])
    start = str(tokenizer.decode(renderer.prompt_ids(turns("a"))))
    assert start.endswith("<|im_start|>assistant\n<think>\n")
    assert tokenizer.decode(rendered.input_ids) == start + expected
    assert masked_text(tokenizer, rendered) == [expected]


def test_a_prompt_that_opens_thoughts_gets_one_block_where_the_template_writes_an_empty_one() -> None:
    """As Nemotron's: thoughts behind the prompt's opening, else a whole empty block of its own."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{{ '<think>\n' + m.reasoning_content + '\n</think>\n' if m.reasoning_content else '<think></think>' }}"
        "{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    renderer = Renderer(tokenizer, "chat")
    empty = converse(renderer, turns("a", "yes"))
    thinks = converse(renderer, [*turns("a"), Message("assistant", "yes", reasoning="so")])
    assert masked_text(tokenizer, empty) == ["\n</think>\n\nyes<|im_end|>"]
    assert masked_text(tokenizer, thinks) == ["so\n</think>\nyes<|im_end|>"]


def test_no_chat_template_says_what_to_do() -> None:
    with pytest.raises(TemplateError, match=r"chat_template: tulu.*template: none"):
        Renderer(make_tokenizer(template=None), "chat")


def test_no_eos_is_refused() -> None:
    with pytest.raises(TemplateError, match="no EOS"):
        Renderer(make_tokenizer(eos=None), "chat")


def test_a_template_that_raises_names_the_roles() -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + CHATML
    with pytest.raises(TemplateError, match=r"user, assistant, user.*too many"):
        Renderer(make_tokenizer(template), "chat").prompt_ids(turns("a", "b", "c"))


def test_template_none_joins_prompt_and_response_with_bos_and_eos_once() -> None:
    tokenizer = make_tokenizer(template=None, eos="</s>")
    rendered = converse(Renderer(tokenizer, "none"), turns("2 + 2 =", " 4"))
    assert tokenizer.decode(rendered.input_ids) == "<s>2 + 2 = 4</s>"
    assert masked_text(tokenizer, rendered) == [" 4</s>"]


def test_template_none_doubles_no_token_that_the_text_has_already() -> None:
    tokenizer = make_tokenizer(template=None, eos="</s>")
    rendered = converse(Renderer(tokenizer, "none"), turns("<s>a", "b</s>"))
    assert tokenizer.decode(rendered.input_ids) == "<s>ab</s>"


def test_template_none_knows_no_turns() -> None:
    with pytest.raises(TemplateError, match="3 turns"):
        converse(Renderer(make_tokenizer(), "none"), turns("a", "b", "c", "d"))


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3), st.lists(TEXT, min_size=1, max_size=1), st.booleans())
def test_every_response_starts_at_the_generation_prompt_and_ends_with_the_end_of_turn(
    questions: list[str], answers: list[str], chatml: bool
) -> None:
    tokenizer = make_tokenizer(*((CHATML, "<|im_end|>") if chatml else (LLAMA, "<|eot|>")))
    contents = [text for question in questions for text in (question, answers[0])]
    messages = turns(*contents)
    rendered = converse(Renderer(tokenizer, "chat"), messages)
    prompt = inference_ids(tokenizer, messages[:-1], add_generation_prompt=True)
    whole = str(tokenizer.decode(inference_ids(tokenizer, messages)))
    assert rendered.input_ids[: len(prompt)] == prompt
    assert rendered.input_ids[-1] == tokenizer.eos_token_id
    assert whole.rstrip("\n") == tokenizer.decode(rendered.input_ids)
    assert len(rendered.input_ids) == len(rendered.response_mask)
    assert len(masked_text(tokenizer, rendered)) == len(questions)
