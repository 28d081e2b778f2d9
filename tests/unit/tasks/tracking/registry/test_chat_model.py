"""A registered model renders turns as training did, without Preflow: the same token ids for every way of rendering."""

from typing import Any

import pytest

from preflow.config.base import Rendering
from preflow.data.rows import Message
from preflow.data.tokens.chat_template import Renderer
from tasks.tracking.registry.chat_model import prompt_ids
from tests.conftest import CHATML, make_tokenizer

pytestmark = pytest.mark.slow  # MLflow's import takes seconds
QUESTION = (Message("user", "Where is order 3?"),)
TALK = (Message("system", "Be brief."), *QUESTION, Message("assistant", "On its way."), Message("user", "Since when?"))
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
DATED = "Today is {{ strftime_now('%d %B %Y') }}.\n" + CHATML
PARTS = CHATML.replace("message['content']", "message['content'][0]['text']")


@pytest.mark.parametrize(
    ("settings", "turns"),
    [
        ({}, TALK),
        ({"chat_template": NO_SYSTEM}, TALK),
        ({"system_turn": "user"}, TALK),
        ({"system_turn": "drop"}, TALK),
        ({"chat_template": DATED}, TALK),
        ({"chat_template": DATED, "template_date": "2025-01-31"}, TALK),
        ({"chat_template": PARTS}, TALK),
        ({"template": "none"}, QUESTION),
    ],
)
def test_the_prompt_is_that_of_training(settings: dict[str, Any], turns: tuple[Message, ...]) -> None:
    renderer = Renderer(make_tokenizer(), Rendering.model_validate(settings))
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    found = prompt_ids(make_tokenizer(), {"rendering": renderer.settings()}, messages)
    assert found == renderer.prompt_ids(turns)
