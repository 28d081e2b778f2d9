"""The one place that tokenizes conversations.

A response starts exactly where the generation prompt ends, so that training sees the very tokens that inference gives
the model, and ends with the token at which generation stops. Masks are positions; no token id ever means "ignore".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from preflow.config.base import Rendering, Template
from preflow.data.rows import Message
from preflow.data.tokens.reasoning import thoughts_of, writes_empty_block
from preflow.data.tokens.template_text import TemplateText
from preflow.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: How templates write tokens that are not words: ``<|im_end|>``, ``</s>``, ``[/INST]``.
_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


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
        text: The chat template; none where the recipe joins prompt and response.
        closing_id: The id that ends every response: the special token that the template writes after an answer, else
            the tokenizer's EOS.
        end_ids: Ids at which generation must stop: ``closing_id`` and the tokenizer's EOS.

    Args:
        tokenizer: The model's tokenizer, with its chat template.
        rendering: The recipe's settings, or of them ``template`` alone: ``chat`` renders turns through the chat
            template, ``none`` joins prompt and response as they are.

    Raises:
        TemplateError: There is no chat template to use, or no token to end a response with.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", rendering: Rendering | Template) -> None:
        rendering = Rendering(template=rendering) if isinstance(rendering, str) else rendering
        self.tokenizer = tokenizer
        self.template = rendering.template
        self._name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if tokenizer.eos_token_id is None:
            raise TemplateError(f"tokenizer {self._name} has no EOS token, so no response could end; set its eos_token")
        self.closing_id: int = tokenizer.eos_token_id
        self._closed_by_template = False
        self.text = TemplateText(tokenizer, rendering) if rendering.template == "chat" else None
        if self.text is not None:
            self._learn_end(self.text)
        bos = tokenizer.bos_token_id
        self._adds_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
        self.end_ids: tuple[int, ...] = tuple(sorted({tokenizer.eos_token_id, self.closing_id}))

    def settings(self) -> dict[str, Any]:
        """How a prompt becomes tokens, as JSON, for programs that have transformers and no Preflow."""
        return {"chat_template": None, "adds_bos": self._adds_bos} if self.text is None else self.text.settings()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What inference gives the model before it answers.

        Args:
            messages: Turns that end with the user's.

        Returns:
            Token ids, length P, the generation prompt (``<|im_start|>assistant`` or its like) included.
        """
        if self.text is None:
            return self._plain_prompt(messages)
        ids = self.encode(self.text.prompt(messages))
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
            Token ids, length R, so that ``prompt_ids + response_ids`` is what inference sees up to and including the
            end-of-turn token.

        Raises:
            TemplateError: The template writes the answer otherwise than its prompt can be answered.
        """
        if self.text is None:
            return self._plain_response("\n".join(turn.content for turn in response))
        text = self.text.render((*prompt, *response))
        ids = self.encode(text)
        if ids[: len(prompt_ids)] != prompt_ids:
            text, ids = self._continued(self.text, prompt, response, prompt_ids)
        return self._closed(ids[len(prompt_ids) :], text, self.text.tail)

    def conversation(
        self, messages: Sequence[Message], context: int = 0, masked: Sequence[int] = ()
    ) -> TokenizedConversation | None:
        """A whole conversation with the positions of its assistant turns.

        Args:
            messages: Turns that end with the assistant's.
            context: Assistant turns among so many leading turns stay out of the mask.
            masked: Places of other turns that stay out of it; never the last.

        Returns:
            None where the template rewrites an earlier answer, so that no mask fits what inference sees: each answer
            then needs a row of its own.
        """
        before, last = messages[:-1], messages[-1:]
        prompt = self.prompt_ids(before)
        response = self.response_ids(before, last, prompt)
        mask = [False] * len(prompt) + [True] * len(response)
        earlier = [place for place in answers(messages, context, masked) if place < len(before)]
        if earlier and self.text is not None:
            text = self.text.prompt(before)
            for place in earlier:
                span = self._earlier_turn(self.text, messages[: place + 1], prompt, text)
                if span is None:
                    return None
                mask[span[0] : span[1]] = [True] * (span[1] - span[0])
        return TokenizedConversation(prompt + response, mask)

    def reasoning_of(self, prompt: Sequence[Message], response: Sequence[Message]) -> str | None:
        """What becomes of the thoughts before an answer.

        Returns:
            ``reasoning_lost`` where they are in no token, ``empty_think_block`` where the template writes an empty
            block of them, which is then learnt; else None.
        """
        last = response[-1]
        thoughts = thoughts_of(last)
        if self.text is None:
            return "reasoning_lost" if thoughts and thoughts not in last.content else None
        if not thoughts and not self.text.thinks:
            return None
        written = self.text.response(prompt, response)
        if written is None:
            return None
        if thoughts and thoughts not in written:
            return "reasoning_lost"
        return "empty_think_block" if writes_empty_block(last, written) else None

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; the template has written every special token itself."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def _learn_end(self, text: TemplateText) -> None:
        """Find the token with which the template ends an answer.

        Raises:
            TemplateError: The recipe's template ends answers with a mark that is no token of this tokenizer.
        """
        special = set(self.tokenizer.all_special_ids) | {
            index
            for index, token in getattr(self.tokenizer, "added_tokens_decoder", {}).items()
            if token.special or _MARK.fullmatch(token.content)
        }
        ends = [index for index in self.encode(text.tail) if index in special]
        if ends:
            self.closing_id = ends[0]  # the first: what follows is never generated
            self._closed_by_template = True
        elif text.is_given and (mark := _MARK.search(text.tail)):
            raise TemplateError(
                f"chat_template ends answers with {mark[0]!r}, which is no token of tokenizer {self._name}, so "
                "generation could not stop there: set `chat_template: tulu`, which ends them with its EOS "
                f"({self.tokenizer.eos_token}), or add the token to the tokenizer"
            )

    def _closed(self, response: list[int], text: str, tail: str) -> list[int]:
        """Cut what the template writes after the end-of-turn token; add the token where it writes none."""
        if self._closed_by_template and self.closing_id in response:
            last = len(response) - 1 - response[::-1].index(self.closing_id)
            return response[: last + 1]
        blanks = len(text) - len(text.rstrip()) if text.endswith(tail) else 0
        blanks = min(blanks, len(tail) - len(tail.rstrip()))
        trailing = self.encode(text[len(text) - blanks :]) if blanks else []
        if trailing and response[-len(trailing) :] == trailing:
            response = response[: -len(trailing)]
        return [*response, self.closing_id]

    def _continued(
        self, template: TemplateText, prompt: Sequence[Message], response: Sequence[Message], prompt_ids: list[int]
    ) -> tuple[str, list[int]]:
        """The prompt as inference has it, and the answer behind it.

        Where the tokenizer merges across the boundary, the answer is tokenized by itself, as inference would see it.

        Returns:
            The text, and ids that begin with ``prompt_ids`` and stand for it.
        """
        start, written = template.prompt(prompt), template.response(prompt, response)
        if written is not None:
            ids = self.encode(start + written)
            if ids[: len(prompt_ids)] == prompt_ids:
                return start + written, ids
            joined = prompt_ids + self.encode(written)
            if self.tokenizer.decode(joined) == self.tokenizer.decode(ids):
                return start + written, joined
        whole = self.encode(template.render((*prompt, *response)))
        at = _common(prompt_ids, whole)
        got, expected = (self.tokenizer.decode(part[at : at + 8]) for part in (whole, prompt_ids))
        raise TemplateError(
            f"the chat template of {self._name} does not render a conversation as it renders its prompt: from token "
            f"{at} on, the whole reads {got!r} where the generation prompt reads {expected!r}. Training would see "
            "other tokens than inference; give another template as `chat_template`, or set `template: none`"
        )

    def _earlier_turn(
        self, template: TemplateText, messages: Sequence[Message], prompt: list[int], text: str
    ) -> tuple[int, int] | None:
        """Positions of an assistant turn that is not the last, in the ids of the prompt that holds it.

        Args:
            template: The chat template.
            messages: Turns that end with the one to find.
            prompt: Ids of the longer prompt, length P.
            text: The same prompt as text.

        Returns:
            Start and end of content and end-of-turn token; none where the longer prompt does not hold the turn as it
            would be answered. A token that the tokenizer merged across the turn's start is left out: inference never
            predicts it.
        """
        before = template.prompt(messages[:-1])
        answer = template.response(messages[:-1], messages[-1:])
        if answer is None or not text.startswith(before):
            return None
        closing = str(self.tokenizer.decode([self.closing_id]))
        answer = answer.partition(closing)[0] + closing if self._closed_by_template else answer.rstrip()
        if not text.startswith(answer, len(before)):
            return None
        start = self._end_of(self.encode(before), prompt)
        if self._closed_by_template:
            return start, prompt.index(self.closing_id, start) + 1
        end = _common(self.encode(before + answer), prompt)
        return start, end + (prompt[end : end + 1] == [self.closing_id])  # some templates leave the last turn open

    def _end_of(self, part: list[int], whole: list[int]) -> int:
        """Where the text of ``part`` ends in ``whole``, which begins with it but may be cut into other tokens.

        The token before the first that differs is decoded too, since some tokenizers strip a text's first blank.
        """
        common = _common(part, whole)
        if common == len(part):
            return common
        first = max(0, common - 1)
        length = len(self.tokenizer.decode(part[first:]))
        return next(
            (end for end in range(common, len(whole)) if len(self.tokenizer.decode(whole[first:end])) >= length),
            len(whole),
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


def answers(messages: Sequence[Message], context: int, masked: Sequence[int]) -> list[int]:
    """Places of the assistant turns that are trained on."""
    return [
        place
        for place, message in enumerate(messages)
        if message.role == "assistant" and place >= context and place not in masked
    ]


def _common(left: list[int], right: list[int]) -> int:
    """Length of the shared prefix."""
    shorter = min(len(left), len(right))
    return next((i for i in range(shorter) if left[i] != right[i]), shorter)
