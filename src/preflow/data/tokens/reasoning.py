"""The thoughts before an answer: where a turn has them, and how an opened block of them is closed."""

import re

from preflow.data.rows import Message

#: A generation prompt that ends inside a block of thoughts.
OPENED = re.compile(r"<think>\s*\Z")
_OPEN, _CLOSE = "<think>", "</think>"
_BLOCK = re.compile(r"\s*(<think>.*?</think>\s*)?", re.DOTALL)


def thoughts_of(message: Message) -> str:
    """The thoughts before an answer: a key of its own, or what stands before ``</think>`` in the text."""
    if message.role != "assistant":
        return ""
    if message.reasoning:
        return message.reasoning.strip()
    before, mark, _ = message.content.partition(_CLOSE)
    return before.rpartition(_OPEN)[2].strip() if mark else ""


def close_thoughts(opened: str, thoughts: str) -> str:
    """What a model writes after an opened block: thoughts, its end, and a blank line before the answer."""
    return f"{'' if opened.endswith(chr(10)) else chr(10)}{thoughts}\n{_CLOSE}\n\n"


def writes_empty_block(message: Message, response: str) -> bool:
    """Whether a rendering of an answer has a block of thoughts that the turn itself lacks."""
    return _CLOSE in response and not thoughts_of(message) and _CLOSE not in message.content


def without_block(answer: str) -> str:
    """An answer without the block of thoughts that a template writes before it, and without blanks there."""
    return answer[_BLOCK.match(answer).end() :]  # type: ignore[union-attr]  # it matches every text
