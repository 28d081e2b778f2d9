"""Rows to tokens, within a length limit: nothing is dropped or cut without being counted by reason."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.tokens.chat_template import Renderer
from preflow.errors import DataError, TemplateError
from preflow.observer import Observer, Silent, UserText

Overlong = Literal["drop", "cut"]
R = TypeVar("R", Demonstration, Pair)
T = TypeVar("T")
_EXAMPLES = 5
_PROGRESS_EVERY = 256


@dataclass(frozen=True, slots=True)
class TokenizedDemonstration:
    """A conversation ready for training.

    Attributes:
        input_ids: Token ids, length T.
        response_mask: Length T; true where the loss is taken.
        source: Where the row stands.
    """

    input_ids: list[int]
    response_mask: list[bool]
    source: Source


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair ready for training; both responses answer the same prompt tokens.

    Attributes:
        prompt_ids: Length P, generation prompt included.
        chosen_ids: Length C, end-of-turn token included.
        rejected_ids: Length R, end-of-turn token included.
        source: Where the row stands.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    source: Source


@dataclass(slots=True)
class RowCounts:
    """Where the rows of one call went: rows in = used + dropped, by reason.

    Attributes:
        rows_in: Rows given.
        used: Rows that came out.
        dropped: Reason to number of rows that did not.
        changed: Reason to number of used rows that lost something (old turns, the end of a response).
        examples: Reason to the first few rows, as ``file:row``.
    """

    rows_in: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, source: Source) -> None:
        """Count a row that does not come out."""
        self.dropped[reason] += 1
        self._example(reason, source)

    def change(self, reason: str, source: Source) -> None:
        """Count a used row that lost something."""
        self.changed[reason] += 1
        self._example(reason, source)

    def add(self, later: "RowCounts") -> None:
        """Count the rows that follow too."""
        self.rows_in += later.rows_in
        self.used += later.used
        self.dropped += later.dropped
        self.changed += later.changed
        for reason, named in later.examples.items():
            self.examples[reason] = [*self.examples.get(reason, []), *named][:_EXAMPLES]

    def check(self) -> None:
        """Raise unless rows in = used + dropped.

        Raises:
            DataError: The sums differ: an error of the program, not of the data.
        """
        if self.rows_in != self.used + self.dropped.total():
            raise DataError(
                f"{self.rows_in} rows in, but {self.used} used + {self.dropped.total()} dropped ({dict(self.dropped)})"
            )

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "rows_in": self.rows_in,
            "used": self.used,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
            "examples": dict(sorted(self.examples.items())),
        }

    def __str__(self) -> str:
        whole = f"{self.rows_in} rows in, {self.used} used"
        return UserText(
            "; ".join([whole, *self._listed("dropped", self.dropped), *self._listed("changed", self.changed)])
        )

    def _listed(self, verb: str, reasons: Counter[str]) -> list[UserText]:
        return [
            UserText(
                f"{count} {verb}: {reason} ({', '.join(self.examples[reason])}{', ...' if count > _EXAMPLES else ''})"
            )
            for reason, count in sorted(reasons.items())
        ]

    def _example(self, reason: str, source: Source) -> None:
        named = self.examples.setdefault(reason, [])
        if len(named) < _EXAMPLES:
            named.append(str(source))


def tokenize_demonstrations(
    rows: Sequence[Demonstration],
    renderer: Renderer,
    max_seq_length: int,
    overlong: Overlong,
    observer: Observer | None = None,
) -> tuple[list[TokenizedDemonstration], RowCounts]:
    """Render and tokenize demonstrations.

    Args:
        rows: Validated rows.
        renderer: The model's.
        max_seq_length: Most tokens of a row. A longer row loses its oldest whole turns, a leading system turn
            excepted, until it fits or only the last user turn is left.
        overlong: What happens to a response that still does not fit: ``drop`` leaves the row out
            (``response_too_long``), ``cut`` cuts the response's end and with it the end-of-turn token
            (``response_cut``). A row whose last user turn leaves no room is left out (``prompt_too_long``).
        observer: Told of progress.

    Returns:
        The rows that came out, in order, and the counts.

    Raises:
        TemplateError: The chat template refuses a row or rewrites its turns; names the row.
    """
    return _tokenize(
        rows, lambda row, counts: _demonstration(row, renderer, max_seq_length, overlong, counts), observer
    )


def tokenize_pairs(
    rows: Sequence[Pair],
    renderer: Renderer,
    max_seq_length: int,
    overlong: Overlong,
    observer: Observer | None = None,
) -> tuple[list[TokenizedPair], RowCounts]:
    """Render and tokenize pairs; like ``tokenize_demonstrations``, with both responses held to the limit.

    Cutting can make two responses equal, which teaches nothing: such a row is left out (``equal_when_cut``).
    """
    return _tokenize(rows, lambda row, counts: _pair(row, renderer, max_seq_length, overlong, counts), observer)


def _tokenize(
    rows: Sequence[R], tokenize: Callable[[R, RowCounts], T | None], observer: Observer | None
) -> tuple[list[T], RowCounts]:
    observer = observer or Silent()
    counts = RowCounts(rows_in=len(rows))
    out: list[T] = []
    for done, row in enumerate(rows, 1):
        try:
            tokenized = tokenize(row, counts)
        except TemplateError as error:
            raise TemplateError(f"{row.source}: {error.message}") from error
        if tokenized is not None:
            out.append(tokenized)
        if done % _PROGRESS_EVERY == 0 or done == len(rows):
            observer.progress(done, len(rows), "rows tokenized")
    counts.used = len(out)
    counts.check()
    return out, counts


def _demonstration(
    row: Demonstration, renderer: Renderer, limit: int, overlong: Overlong, counts: RowCounts
) -> TokenizedDemonstration | None:
    messages, context, masked = row.messages, row.context, row.masked
    rendered = renderer.conversation(messages, context, masked)
    while len(rendered.input_ids) > limit:
        shorter = _without_oldest_turns(messages[:-1])
        if shorter is None:
            break
        gone = len(messages) - 1 - len(shorter)
        context, masked = max(0, context - gone), tuple(place - gone for place in masked if place >= gone)
        messages = (*shorter, messages[-1])
        rendered = renderer.conversation(messages, context, masked)
    ids, mask = rendered.input_ids, rendered.response_mask
    prompt_length = len(ids) if len(ids) <= limit else len(renderer.prompt_ids(messages[:-1]))
    if len(ids) > limit and not _may_cut(prompt_length, limit, overlong, row.source, counts):
        return None
    if len(messages) < len(row.messages):
        counts.change("turns_removed", row.source)
    _count_reasoning(renderer, row.source, counts, messages)
    return TokenizedDemonstration(ids[:limit], mask[:limit], row.source)


def _pair(row: Pair, renderer: Renderer, limit: int, overlong: Overlong, counts: RowCounts) -> TokenizedPair | None:
    prompt = row.prompt
    ids, chosen, rejected = _token_ids(row, prompt, renderer)
    while len(ids) + max(len(chosen), len(rejected)) > limit:
        shorter = _without_oldest_turns(prompt)
        if shorter is None:
            break
        prompt = shorter
        ids, chosen, rejected = _token_ids(row, prompt, renderer)
    room = limit - len(ids)
    if max(len(chosen), len(rejected)) > room:
        if room > 0 and overlong == "cut" and chosen[:room] == rejected[:room]:
            counts.drop("equal_when_cut", row.source)
            return None
        if not _may_cut(len(ids), limit, overlong, row.source, counts):
            return None
    if len(prompt) < len(row.prompt):
        counts.change("turns_removed", row.source)
    _count_reasoning(renderer, row.source, counts, (*prompt, *row.chosen), (*prompt, *row.rejected))
    return TokenizedPair(ids, chosen[:room], rejected[:room], row.source)


def _count_reasoning(renderer: Renderer, source: Source, counts: RowCounts, *conversations: Sequence[Message]) -> None:
    """Count a row whose thoughts the template leaves out, or in which it writes an empty block for them."""
    if any(map(renderer.loses_reasoning, conversations)):
        counts.change("reasoning_lost", source)
    if renderer.writes_empty_thoughts and not all(
        turns[-1].reasoning or "</think>" in turns[-1].content for turns in conversations
    ):
        counts.change("empty_think_block", source)


def prompt_with_room(prompt: Sequence[Message], renderer: Renderer, limit: int, answer: int) -> list[int]:
    """Token ids of a prompt without so many of its oldest turns that an answer fits behind it, as in training.

    Args:
        prompt: Turns that end with the user's.
        renderer: The model's.
        limit: Most tokens of prompt and answer.
        answer: Tokens of the answer.

    Returns:
        P token ids. Where even the last user turn alone leaves too little room, its own, however many.
    """
    ids = renderer.prompt_ids(prompt)
    while len(ids) + answer > limit and (shorter := _without_oldest_turns(prompt)) is not None:
        prompt = shorter
        ids = renderer.prompt_ids(prompt)
    return ids


def _token_ids(row: Pair, prompt: Sequence[Message], renderer: Renderer) -> tuple[list[int], list[int], list[int]]:
    ids = renderer.prompt_ids(prompt)
    chosen = renderer.response_ids(prompt, row.chosen, ids)
    return ids, chosen, renderer.response_ids(prompt, row.rejected, ids)


def _without_oldest_turns(prompt: Sequence[Message]) -> tuple[Message, ...] | None:
    """The prompt without its oldest user turn and the answer to it; none where only the last user turn is left."""
    system = tuple(prompt[:1]) if prompt[0].role == "system" else ()
    rest = prompt[len(system) :]
    start = next((i for i, message in enumerate(rest) if i and message.role == "user"), None)
    return None if start is None else (*system, *rest[start:])


def _may_cut(prompt_length: int, limit: int, overlong: Overlong, source: Source, counts: RowCounts) -> bool:
    """Decide on a response that does not fit, and count it."""
    if prompt_length >= limit:
        counts.drop("prompt_too_long", source)
        return False
    if overlong == "drop":
        counts.drop("response_too_long", source)
        return False
    counts.change("response_cut", source)
    return True
