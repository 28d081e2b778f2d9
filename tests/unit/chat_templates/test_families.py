"""A recipe's chat template by name, by file or as text; a wrong one is an error when the recipe is read."""

from pathlib import Path

import pytest

from preflow.chat_templates import families
from preflow.chat_templates.families import FAMILIES, template_text
from preflow.chat_templates.limits import limited_time
from preflow.config.base import Rendering
from preflow.data.rows import Message
from preflow.data.tokens.chat_template import Renderer
from preflow.errors import ConfigError
from tests.unit.config.recipe_files import TWO_STAGE, load, refused
from tests.unit.data.tokens.tokenizers import CHATML, make_tokenizer

CHAT = (
    Message("user", "Hi."),
    Message("assistant", "Hello."),
    Message("user", "And you?"),
    Message("assistant", "Ok."),
)
PARTS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'][0]['text'] + '\n' }}{% endfor %}"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_renders_one_answer_and_ends_it_with_its_token(name: str) -> None:
    family = FAMILIES[name]
    end = "</s>" if family.end == "EOS" else family.end
    tokenizer = make_tokenizer(None, "</s>", "<s>", more=(family.end,) if family.end != "EOS" else ())
    renderer = Renderer(tokenizer, Rendering(chat_template=template_text(name, Path())))
    rendered = renderer.conversation(CHAT[:2])
    assert rendered is not None
    text = str(tokenizer.decode(rendered.input_ids))
    assert text.endswith(f"Hello.{end}")
    assert text.count("Hello.") == text.count("Hi.") == 1
    assert renderer.closing_id == tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize(
    ("given", "name"), [("llama-3", "llama3"), ("Qwen2_5", "qwen2.5"), ("CHATML", "chatml"), ("gemma 2", "gemma")]
)
def test_a_family_is_found_in_any_spelling_of_its_name(given: str, name: str) -> None:
    assert template_text(given, Path()) == FAMILIES[name].text()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("chatlm", "no known family, no file and no Jinja text: did you mean 'chatml'?"),
        ("lama3", "did you mean 'llama3'?"),
        ("wholly else", "known are chatml, "),
        ("mine.jinja", "mine.jinja is no file"),
        ("{% for m in messages %}{{ m.content }}", "does not compile: "),
        ("{{ messages[0].content + 1 }}", "fails on one turn of the user: "),
        ("{{ raise_exception('never') }}", "fails on one turn of the user: never"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_error_when_the_recipe_is_read(
    given: str, says: str, tmp_path: Path
) -> None:
    message = refused(tmp_path, {**TWO_STAGE, "chat_template": given})
    assert says in message
    assert "chat_template" in message


def test_a_file_and_its_text_are_the_same_template(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML, encoding="utf-8")
    by_file = load(tmp_path, {**TWO_STAGE, "chat_template": "mine.jinja"})
    by_text = load(tmp_path, {**TWO_STAGE, "chat_template": CHATML})
    assert by_file.chat_template == by_text.chat_template == CHATML
    (tmp_path / "mine.jinja").write_text(CHATML + "{# another #}", encoding="utf-8")
    assert load(tmp_path, {**TWO_STAGE, "chat_template": "mine.jinja"}).chat_template != CHATML


def test_a_template_that_takes_parts_alone_is_accepted() -> None:
    assert template_text(PARTS, Path()) == PARTS


def test_a_chat_template_beside_template_none_is_a_contradiction(tmp_path: Path) -> None:
    message = refused(tmp_path, {**TWO_STAGE, "template": "none", "chat_template": "chatml"})
    assert "template is 'none', which uses no chat template" in message


def test_a_settled_template_is_read_again_as_it_is(tmp_path: Path) -> None:
    """As a finished run's recipe is, which holds the text."""
    text = FAMILIES["mistral"].text()
    assert template_text(text, tmp_path) == text


def test_an_end_token_that_the_tokenizer_lacks_is_refused_with_one_that_it_has() -> None:
    from preflow.errors import TemplateError

    base = make_tokenizer(None, "</s>", "<s>")
    given = Rendering(chat_template=FAMILIES["llama3"].text())
    with pytest.raises(TemplateError, match=r"'<\|eot_id\|>', which is no token .*`chat_template: tulu`.*\(</s>\)"):
        Renderer(base, given)
    own = make_tokenizer(FAMILIES["llama3"].text(), "</s>", "<s>")  # a model that was trained so answers so
    assert Renderer(own, Rendering()).closing_id == own.eos_token_id


def test_config_error_is_what_a_wrong_template_raises() -> None:
    with pytest.raises(ConfigError):
        template_text("chatlm", Path())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ 'a' * 9999999999 }}", "a number or a width above 1,000,000"),
        ("{{ 'a' * (9e9|int) }}", "a number or a width above 1,000,000"),
        ("{{ 'a' * ('9999999999'|int) }}", "a number or a width above 1,000,000"),
        ("{{ '%999999999d' % 1 }}", "a number or a width above 1,000,000"),
        ("{{ '{:>999999999}'.format(1) }}", "a number or a width above 1,000,000"),
        ("{{ messages[0]['content'] + 1e999 }}", "a number or a width above 1,000,000"),
        ("{{ messages.append.x.y }}", "fails on one turn"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "it took more than 0.3 s"),
    ],
)
def test_a_template_that_would_take_for_ever_or_breaks_what_runs_it_is_one_error(
    monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(families, "limited_time", lambda: limited_time(0.3))
    with pytest.raises(ConfigError, match=why):
        template_text(text, Path())


def test_a_date_in_a_template_is_no_width() -> None:
    text = "{{ 'Knowledge cutoff:20240601 ' }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert template_text(text, Path()) == text
