"""A chat template of others is held to limits of time and size, and whatever it raises is one clear error."""

import signal
import time

import pytest

from preflow.chat_templates.limits import limited_time
from preflow.config.base import Rendering
from preflow.data.tokens import template_text
from preflow.data.tokens.template_text import TemplateText
from preflow.errors import TemplateError
from tests.unit.data.tokens.tokenizers import PLAIN, make_tokenizer


def refused(template: str) -> str:
    with pytest.raises(TemplateError) as caught:
        TemplateText(make_tokenizer(PLAIN), Rendering(chat_template=template))
    return str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        "{{ 'a' * 999999999 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>99999999}'.format('a') }}",
        "{{ 'a' | center(99999999) }}",
    ],
)
def test_a_text_of_any_length_in_one_step_is_refused_before_it_is_written(step: str) -> None:
    assert "could write a text of any length" in refused(PLAIN + step)


def test_a_template_that_writes_far_more_than_its_turns_say_is_refused() -> None:
    writes = "{% for a in range(1000) %}{{ 'x' * 1000 }}{% endfor %}"
    assert "characters for turns of" in refused(PLAIN + writes)


@pytest.mark.parametrize(
    "step", ["{{ 1 // 0 }}", "{{ 10.0 ** 400 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
)
def test_whatever_a_template_raises_is_a_template_error(step: str) -> None:
    assert "fails on one turn" in refused(PLAIN + step) or "refuses a conversation" in refused(PLAIN + step)


def test_a_template_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_text, "limited_time", lambda: limited_time(0.05))
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = b %}{% endfor %}{% endfor %}"
    assert "it took more than 0.05 s" in refused(PLAIN + endless)


def test_a_limit_inside_another_leaves_the_outer_one_what_is_left_of_it() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    with limited_time(30.0):
        with limited_time(10.0):
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 10
        assert 10 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30
        with pytest.raises(TimeoutError), limited_time(0.01):
            time.sleep(5)
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (before > 0)
