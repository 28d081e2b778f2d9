"""A chat template as a function from turns to text, and what it does to turns: learned from renderings of a probe.

Nothing here knows tokens. What a template cannot take is given to it in the form that it can: content as parts, a
system turn before the first user turn, a fixed date in place of today's.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.nodes

from preflow.chat_templates.limits import FAULTS, LARGEST_NUMBER, has_large_number, limited_time
from preflow.config.base import Rendering
from preflow.data.rows import Message, to_json
from preflow.data.tokens.reasoning import OPENED, close_thoughts, thoughts_of, without_block
from preflow.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The date that templates write which ask for today's, where the recipe gives none: Llama 3's own, without a clock.
PINNED_DATE = date(2024, 7, 26)
_PROBE = (Message("user", "What is 7713?"), Message("assistant", "It is 3177."))
_SYSTEM = Message("system", "Say 5291.")
_FAULTS = (jinja2.TemplateError, *FAULTS)
#: Characters that a template may write for each character of a turn, and those that a turn counts for at least.
_MOST_WRITTEN, _PER_TURN = 20, 10_000
_CLOCK = re.compile(r"strftime_now\(\s*(?:(['\"])([^'\"]*)\1\s*\))?")
#: In place of the clock, which cannot be passed to a template: the dates of all formats that it asks for.
_FIXED_CLOCK = "{% macro strftime_now(format) %}{{ preflow_dates[format] }}{% endmacro +%}"


class TemplateText:
    """A tokenizer's chat template, or the recipe's in its place.

    Attributes:
        name: The tokenizer's, for messages.
        lead: What the template writes between the generation prompt and an answer: most often nothing.
        tail: What it writes after an answer.
        moves_system_turn: Whether system turns stand before the first user turn, which the template does not do itself.
        drops_system_turn: Whether system turns are removed, as the recipe says.
        date: The date that it writes in place of today's; none where it asks for none.
        thinks: Whether it knows ``<think>`` blocks.

    Args:
        tokenizer: Gives the chat template, unless ``rendering`` does, and the special tokens.
        rendering: The recipe's settings.

    Raises:
        TemplateError: There is no template, it fails on one turn, or it does not write what turns say.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", rendering: Rendering) -> None:
        self._tokenizer = tokenizer
        self.name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if not (rendering.chat_template or tokenizer.chat_template):
            raise TemplateError(
                f"tokenizer {self.name} has no chat template: set `chat_template: tulu`, which needs no token but EOS, "
                "or another, or set `template: none` to join prompt and response as they are"
            )
        self._jinja: str = rendering.chat_template or tokenizer.get_chat_template()
        self._require_small_numbers()
        self.is_given = rendering.chat_template is not None
        self._values: dict[str, Any] = {}
        self.date = self._fix_date(rendering.template_date)
        self.thinks = "</think>" in self._jinja or "<think>" in self._jinja
        self.moves_system_turn = rendering.system_turn == "user"
        self.drops_system_turn = rendering.system_turn == "drop"
        self._in_parts = False
        self.lead, self.tail, self._opened = "", "", ""
        self._learn()
        if rendering.system_turn == "auto":
            self.moves_system_turn = not self._writes_system_turns()

    def _require_small_numbers(self) -> None:
        """Refuse what writes a text of any length in one step, where no limit of time takes hold.

        Raises:
            TemplateError: A number, or the width of a format, is larger than any template needs.
        """
        if has_large_number(self._jinja):
            raise TemplateError(
                f"the chat template of {self.name} holds a number or a width above {LARGEST_NUMBER:,}, with which it "
                "could write a text of any length: give another as `chat_template`"
            )

    def settings(self) -> dict[str, Any]:
        """How a prompt is rendered, as JSON, for programs that have transformers and no Preflow."""
        system_turn = "user" if self.moves_system_turn else "drop" if self.drops_system_turn else "template"
        return {
            "chat_template": self._jinja,
            "values": self._values,
            "in_parts": self._in_parts,
            "system_turn": system_turn,
        }

    def prompt(self, messages: Sequence[Message]) -> str:
        """What inference gives the model before it answers turns that end with the user's."""
        return self.render(messages, generation_prompt=True)

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """What the template writes.

        Raises:
            TemplateError: The template refuses the turns or fails on them.
        """
        try:
            return self._rendered(messages, generation_prompt=generation_prompt)
        except _FAULTS as error:
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(
                f"the chat template of {self.name} refuses a conversation of {roles}: {_first_line(error)}. "
                "Give another template as `chat_template` (`tulu` needs no token but EOS), or leave such rows out"
            ) from error

    def response(self, prompt: Sequence[Message], response: Sequence[Message]) -> str | None:
        """What the model should write after ``self.prompt(prompt)``, and what the template writes behind it.

        A template may write the history otherwise once the answer is there (Mistral's moves the system text, reasoning
        models' drop thoughts), or leave out the thoughts that its generation prompt opens. The prompt stays what
        inference gives, and the answer follows it as the template ends the conversation.

        Returns:
            The text; None where the template writes the answer otherwise than a prompt can be answered.
        """
        start, whole = self.prompt(prompt), self.render((*prompt, *response))
        if whole.startswith(start):
            return whole[len(start) :]
        thoughts = close_thoughts(self._opened, thoughts_of(response[0])) if self._opened else ""
        if self._opened and start.endswith(self._opened):
            before = start[: -len(self._opened)]
            if whole.startswith(before):
                return thoughts + without_block(whole[len(before) :])
        content = response[-1].content
        for said in dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip())):
            ending = self.lead + said + self.tail
            if len(response) == 1 and whole.endswith(ending):
                return thoughts + (without_block(ending) if thoughts else ending)
        return None

    def _rendered(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        turns: list[dict[str, Any]] = [*to_json(self._fit(messages))]
        if self._in_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        with limited_time():
            text = self._tokenizer.apply_chat_template(
                turns,
                chat_template=self._jinja,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._values,
            )
        said = sum(len(message.content) + len(message.reasoning) + _PER_TURN for message in messages)
        if len(text) > _MOST_WRITTEN * said:
            raise ValueError(f"it writes {len(text):,} characters for turns of {said:,}")
        return str(text)

    def _fit(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The turns with the system turn where the template, or the recipe, wants it."""
        if messages[0].role != "system" or not (self.moves_system_turn or self.drops_system_turn):
            return messages
        system, first, *later = messages
        if self.moves_system_turn:
            first = replace(first, content=f"{system.content}\n\n{first.content}")
        return [first, *later]

    def _fix_date(self, given: date | None) -> date | None:
        """Let the template see one date for ever, whatever the day.

        Raises:
            TemplateError: The template computes a format, so that its dates cannot be given to it.
        """
        if given is not None:
            self._values["date_string"] = given.strftime("%d %b %Y")
        asked = list(_CLOCK.finditer(self._jinja))
        if not asked:
            return given if given is not None and "date_string" in self._jinja else None
        if any(found[2] is None for found in asked):
            raise TemplateError(
                f"the chat template of {self.name} asks for today's date in a format that it computes, so a run would "
                "depend on the day: give one that writes a fixed date as `chat_template`"
            )
        fixed = given or PINNED_DATE
        self._values["preflow_dates"] = {found[2]: fixed.strftime(found[2]) for found in asked}
        self._jinja = _FIXED_CLOCK + self._jinja
        return fixed

    def _learn(self) -> None:
        """Find the form of content that the template takes, and what it writes around an answer."""
        try:
            whole = self._said(_PROBE)
        except _FAULTS:
            whole = None
        if whole is None:
            self._in_parts = True
            whole = self._whole_in_parts()
        question, answer = (turn.content for turn in _PROBE)
        place = whole.rindex(answer)
        before, self.tail = whole[:place], whole[place + len(answer) :]
        start = self.prompt(_PROBE[:1])
        if whole.startswith(start):
            self.lead = before[len(start) :]
            return
        header = start[start.rindex(question) + len(question) :]
        opened = OPENED.search(header)
        for thoughts in ("", opened[0] if opened else ""):
            shorter = header[: len(header) - len(thoughts)]
            # the end of the generation prompt, since a template may write the history otherwise behind it
            if shorter in before:
                self._opened, self.lead = thoughts, before[before.rindex(shorter) + len(shorter) :]
                return
        raise TemplateError(self._unlike_prompt(start, whole))

    def _said(self, messages: Sequence[Message]) -> str | None:
        """The rendering of turns; None where it lacks what they say."""
        whole = self._rendered(messages, generation_prompt=False)
        return whole if messages[-1].content in whole and messages[0].content in self._rendered(
            messages[:1], generation_prompt=True
        ) else None  # fmt: skip

    def _whole_in_parts(self) -> str:
        try:
            whole = self._said(_PROBE)
        except _FAULTS as error:
            self._in_parts = False
            self.render(_PROBE)  # the error of the usual form says more, where there is one
            raise TemplateError(f"the chat template of {self.name} fails on one turn: {_first_line(error)}") from error
        if whole is None:
            raise TemplateError(
                f"the chat template of {self.name} does not write what turns say, neither from text nor from parts: "
                "give one that does as `chat_template`"
            )
        return whole

    def _writes_system_turns(self) -> bool:
        try:
            return _SYSTEM.content in self._rendered((_SYSTEM, _PROBE[0]), generation_prompt=True)
        except _FAULTS:
            return False

    def _unlike_prompt(self, start: str, whole: str) -> str:
        at = next((i for i, (left, right) in enumerate(zip(start, whole, strict=False)) if left != right), len(whole))
        return (
            f"the chat template of {self.name} does not render an answer as it renders its prompt: at character {at} "
            f"the whole reads {whole[at : at + 24]!r} where the generation prompt reads {start[at : at + 24]!r}. "
            "Training would see other text than inference; give another template as `chat_template`"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
