"""The one internal form of a row: turns of a conversation, where they came from, and what they are known by."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row stands: the file's short name, and its line (JSONL) or record number from 1."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: Who speaks.
        content: What is said.
        reasoning: The thoughts before an answer, which some chat templates write; empty where there are none.
    """

    role: Role
    content: str
    reasoning: str = ""

    def to_json(self) -> dict[str, str]:
        """As chat templates and files write it."""
        said = {"role": self.role, "content": self.content}
        return {**said, "reasoning_content": self.reasoning} if self.reasoning else said

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Self:
        """The inverse of ``to_json``."""
        return cls(cast(Role, value["role"]), value["content"], value.get("reasoning_content", ""))


def to_json(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Turns as chat templates take them."""
    return [message.to_json() for message in messages]


def from_json(values: Sequence[dict[str, str]]) -> tuple[Message, ...]:
    """The inverse of ``to_json``."""
    return tuple(Message.from_json(value) for value in values)


def content_id(*parts: Sequence[Message]) -> str:
    """The name of turns by their exact contents, whatever file holds them: SHA-256 in hexadecimal.

    Args:
        parts: The prompt, and for a row its responses; where one part ends and the next begins counts.
    """
    text = json.dumps([to_json(part) for part in parts], separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def first_user_turn(messages: Sequence[Message]) -> str:
    """The content of the first user turn, by which rows are split."""
    return next(message.content for message in messages if message.role == "user")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation whose assistant turns are to be imitated.

    Attributes:
        messages: An optional system turn, then user and assistant in turn; the last is the assistant's.
        source: Where the row stands.
        context: So many leading turns are context alone: assistant turns among them are not trained on. 0 for
            ``messages`` rows, the length of the prompt for ``prompt``/``completion`` rows.
        masked: Places of later assistant turns that are context too, as the row itself says (``weight: 0``).
    """

    messages: tuple[Message, ...]
    source: Source
    context: int = 0
    masked: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One line of the validated files."""
        where = {"file": self.source.file, "row": self.source.row}
        masked = {"masked": list(self.masked)} if self.masked else {}
        return {"messages": to_json(self.messages), "context": self.context, **masked, **where}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        where = Source(value["file"], value["row"])
        return cls(from_json(value["messages"]), where, value["context"], tuple(value.get("masked", ())))


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a preferred and a rejected answer.

    Attributes:
        prompt: An optional system turn, then user and assistant in turn; the last is the user's.
        chosen: The preferred answer: one assistant turn, or several with the user's between them.
        rejected: The other answer, likewise.
        source: Where the row stands.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source: Source

    @property
    def id(self) -> str:
        """Its content id: of the exact prompt, chosen and rejected answer."""
        return content_id(self.prompt, self.chosen, self.rejected)

    def to_json(self) -> dict[str, Any]:
        """One line of the validated files."""
        parts = {name: to_json(getattr(self, name)) for name in ("prompt", "chosen", "rejected")}
        return {**parts, "file": self.source.file, "row": self.source.row}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        prompt, chosen, rejected = (from_json(value[name]) for name in ("prompt", "chosen", "rejected"))
        return cls(prompt, chosen, rejected, Source(value["file"], value["row"]))
