"""The one place that renders a chat template, and the one place that tokenizes.

A response starts exactly where the generation prompt ends, so that training sees the very tokens that inference gives
the model, and ends with the token at which generation stops. Masks are positions; no token id ever means "ignore".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preflow.config.base import Template
from preflow.data.rows import Message, to_json
from preflow.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = (Message("user", "ping"), Message("assistant", "pong"))
_THINK = "<think>"


@dataclass(frozen=True, slots=True)
class TokenizedConversation:
    """A rendered conversation.

    Attributes:
        input_ids: Token ids, length T; the last is the end-of-turn token.
        response_mask: Length T; true on every assistant turn's content and end-of-turn token.
    """

    input_ids: list[int]
    response_mask: list[bool]


class Renderer:
    """Turns messages into tokens, the same way for training and for inference.

    Attributes:
        closing_id: The id that ends every response: the special token that the template writes after an answer, else
            the tokenizer's EOS.
        writes_empty_thoughts: Whether the template writes an empty ``<think>`` block into an answer that has none, so
            that it is learnt.
        end_ids: Ids at which generation must stop: ``closing_id`` and the tokenizer's EOS.

    Args:
        tokenizer: The model's tokenizer, with its chat template.
        template: ``chat`` renders turns through the chat template; ``none`` joins prompt and response as they are.

    Raises:
        TemplateError: There is no chat template to use, or no EOS token to end a response with.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: Template) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if tokenizer.eos_token_id is None:
            raise TemplateError(f"tokenizer {self._name} has no EOS token, so no response could end; set its eos_token")
        self.closing_id: int = tokenizer.eos_token_id
        self._tail = ""
        self._closed_by_template = False
        self.writes_empty_thoughts = False
        if template == "chat":
            self._learn_tail()
        bos = tokenizer.bos_token_id
        self._adds_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
        self.end_ids: tuple[int, ...] = tuple(sorted({tokenizer.eos_token_id, self.closing_id}))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What inference gives the model before it answers.

        Args:
            messages: Turns that end with the user's.

        Returns:
            Token ids, length P, the generation prompt (``<|im_start|>assistant`` or its like) included.
        """
        if self.template == "none":
            return self._plain_prompt(messages)
        ids = self.encode(self._render(messages, generation_prompt=True))
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise TemplateError(f"the chat template of {self._name} writes BOS twice: {ids[:4]}")
        return ids

    def response_ids(self, prompt: Sequence[Message], response: Sequence[Message], prompt_ids: list[int]) -> list[int]:
        """The tokens that the model should answer with.

        Args:
            prompt: Turns that end with the user's.
            response: One assistant turn, or several with the user's between them, all of which are the response.
            prompt_ids: ``prompt_ids(prompt)``, length P.

        Returns:
            Token ids, length R, so that ``prompt_ids + response_ids`` is the whole rendering up to and including the
            end-of-turn token.

        Raises:
            TemplateError: The rendering of the whole does not begin with the prompt's.
        """
        if self.template == "none":
            return self._plain_response("\n".join(turn.content for turn in response))
        text = self._render((*prompt, *response))
        ids = self.encode(text)
        if ids[: len(prompt_ids)] != prompt_ids:
            ids = self._rejoin(prompt, prompt_ids, text, ids)
        return self._closed(ids[len(prompt_ids) :], text)

    def conversation(
        self, messages: Sequence[Message], context: int = 0, masked: Sequence[int] = ()
    ) -> TokenizedConversation:
        """A whole conversation with the positions of its assistant turns.

        Args:
            messages: Turns that end with the assistant's.
            context: Assistant turns among so many leading turns stay out of the mask.
            masked: Places of other turns that stay out of it; never the last.

        Raises:
            TemplateError: The template rewrites earlier turns, so that no mask fits what inference sees.
        """
        before, last = messages[:-1], messages[-1:]
        prompt = self.prompt_ids(before)
        response = self.response_ids(before, last, prompt)
        mask = [False] * len(prompt) + [True] * len(response)
        earlier = [
            index
            for index, message in enumerate(before)
            if message.role == "assistant" and index >= context and index not in masked
        ]
        if earlier:
            text = self._render(before, generation_prompt=True)
            for index in earlier:
                start, end = self._earlier_turn(messages[: index + 1], prompt, text)
                mask[start:end] = [True] * (end - start)
        return TokenizedConversation(prompt + response, mask)

    def loses_reasoning(self, messages: Sequence[Message]) -> bool:
        """Whether thoughts before an answer (a key of its own, or ``<think>`` in the text) are not in the rendering."""
        thoughts = [text for message in messages if (text := _thoughts(message))]
        if not thoughts:
            return False
        text = self._render(messages) if self.template == "chat" else messages[-1].content
        return not all(each in text for each in thoughts)

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; the template has written every special token itself."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def _render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                to_json(messages), tokenize=False, add_generation_prompt=generation_prompt
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(
                f"the chat template of {self._name} refuses a conversation of {roles}: {error}"
            ) from error
        return str(text)

    def _learn_tail(self) -> None:
        """Find out from a probe what the template writes after an assistant's turn."""
        if not self.tokenizer.chat_template:
            raise TemplateError(
                f"tokenizer {self._name} has no chat template: set `template: none` in the recipe to join prompt and "
                "response as they are, or give the tokenizer a chat_template"
            )
        text = self._render(_PROBE)
        prompt = self._render(_PROBE[:1], generation_prompt=True)
        self.writes_empty_thoughts = text.startswith(prompt) and _THINK in text[len(prompt) :]
        self._tail = text[text.rindex(_PROBE[1].content) + len(_PROBE[1].content) :]
        special = set(self.tokenizer.all_special_ids) | {
            index for index, token in getattr(self.tokenizer, "added_tokens_decoder", {}).items() if token.special
        }
        ends = [index for index in self.encode(self._tail) if index in special]
        if ends:
            self.closing_id = ends[0]  # the first: what follows is never generated
            self._closed_by_template = True

    def _closed(self, response: list[int], text: str) -> list[int]:
        """Cut what the template writes after the end-of-turn token; add the token where it writes none."""
        if self._closed_by_template and self.closing_id in response:
            last = len(response) - 1 - response[::-1].index(self.closing_id)
            return response[: last + 1]
        blanks = len(text) - len(text.rstrip()) if text.endswith(self._tail) else 0
        blanks = min(blanks, len(self._tail) - len(self._tail.rstrip()))
        trailing = self.encode(text[len(text) - blanks :]) if blanks else []
        if trailing and response[-len(trailing) :] == trailing:
            response = response[: -len(trailing)]
        return [*response, self.closing_id]

    def _rejoin(self, prompt: Sequence[Message], prompt_ids: list[int], text: str, ids: list[int]) -> list[int]:
        """Where the tokenizer merges across the boundary, tokenize the response by itself, as inference would.

        Returns:
            Ids of the whole that begin with ``prompt_ids`` and stand for the same text.
        """
        start = self._render(prompt, generation_prompt=True)
        if text.startswith(start):
            joined = prompt_ids + self.encode(text[len(start) :])
            if self.tokenizer.decode(joined) == self.tokenizer.decode(ids):
                return joined
        raise self._not_a_prefix(prompt_ids, ids)

    def _not_a_prefix(self, prompt_ids: list[int], ids: list[int]) -> TemplateError:
        at = _common(prompt_ids, ids)
        got, expected = (self.tokenizer.decode(part[at : at + 8]) for part in (ids, prompt_ids))
        return TemplateError(
            f"the chat template of {self._name} does not render a conversation as it renders its prompt: from token "
            f"{at} on, the whole reads {got!r} where the generation prompt reads {expected!r}. Training would see "
            "other tokens than inference; use a template that leaves earlier turns as they are, or `template: none`."
        )

    def _earlier_turn(self, messages: Sequence[Message], prompt: list[int], text: str) -> tuple[int, int]:
        """Positions of an assistant turn that is not the last, in the ids of the prompt that holds it.

        Args:
            messages: Turns that end with the one to find.
            prompt: Ids of the longer prompt, length P.
            text: The same prompt as text.

        Returns:
            Start and end of content and end-of-turn token. A token that the tokenizer merged across the turn's start
            is left out: inference never predicts it.
        """
        start_text = self._render(messages[:-1], generation_prompt=True)
        start_ids = self.encode(start_text)
        start = _common(start_ids, prompt)
        if not text.startswith(start_text):
            raise self._not_a_prefix(start_ids, prompt)
        start += start < len(start_ids)
        content = messages[-1].content.strip()
        if self._closed_by_template:
            closing = str(self.tokenizer.decode([self.closing_id]))
            while_last = self._render(messages)[len(start_text) :].partition(closing)[0]
            if while_last.strip() != text[len(start_text) :].partition(closing)[0].strip():
                raise self._rewritten(content)
            return start, prompt.index(self.closing_id, start) + 1
        turn = self._render(messages).rstrip()
        if not text.startswith(turn):
            raise self._rewritten(content)
        return start, _common(self.encode(turn), prompt)

    def _rewritten(self, content: str) -> TemplateError:
        return TemplateError(
            f"the chat template of {self._name} rewrites an assistant turn once it is not the last (it reads "
            f"{content[:40]!r} while it is), so training on it would teach what inference never sees. Give one row "
            "per answer (prompt and completion), or use another template."
        )

    def _plain_prompt(self, messages: Sequence[Message]) -> list[int]:
        if len(messages) != 1:
            raise TemplateError(
                f"`template: none` joins one prompt and one response, but a row has {len(messages)} turns before "
                "the response; use `template: chat`"
            )
        ids = self.encode(messages[0].content)
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self._adds_bos and ids[:1] != [bos] else ids

    def _plain_response(self, text: str) -> list[int]:
        ids = self.encode(text)
        return ids if ids[-1:] == [self.closing_id] else [*ids, self.closing_id]


def _thoughts(message: Message) -> str:
    """The thoughts before an answer: a key of its own, or what ``<think>`` holds in the text."""
    if message.role != "assistant":
        return ""
    if message.reasoning:
        return message.reasoning.strip()
    before, mark, _ = message.content.partition("</think>")
    return before.rpartition(_THINK)[2].strip() if mark else ""


def _common(left: list[int], right: list[int]) -> int:
    """Length of the shared prefix."""
    shorter = min(len(left), len(right))
    return next((i for i in range(shorter) if left[i] != right[i]), shorter)
