"""Rows to tokens, within a length limit: nothing is dropped or cut without being counted by reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from preflow.config.training import TrainOn
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.tokens.chat_template import Renderer, answers
from preflow.data.tokens.row_counts import RowCounts
from preflow.errors import TemplateError
from preflow.observer import Observer, Silent

Overlong = Literal["drop", "cut"]
R = TypeVar("R", Demonstration, Pair)
T = TypeVar("T")
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
        id: Content id of the row as it was before any of it was left out.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    source: Source
    id: str = ""


def tokenize_demonstrations(
    rows: Sequence[Demonstration],
    renderer: Renderer,
    max_seq_length: int,
    overlong: Overlong,
    observer: Observer | None = None,
    *,
    train_on: TrainOn = "all",
) -> tuple[list[TokenizedDemonstration], RowCounts]:
    """Render and tokenize demonstrations.

    Where the chat template rewrites an earlier answer that is trained on, the row becomes one per answer, each with the
    prompt that inference would have for it (``split_by_answer``).

    Args:
        rows: Validated rows.
        renderer: The model's.
        max_seq_length: Most tokens of a row. A longer row loses its oldest whole turns, a leading system turn
            excepted, until it fits or only the last user turn is left.
        overlong: What happens to a response that still does not fit: ``drop`` leaves the row out
            (``response_too_long``), ``cut`` cuts the response's end and with it the end-of-turn token
            (``response_cut``). A row whose last user turn leaves no room is left out (``prompt_too_long``).
        observer: Told of progress.
        train_on: Whether all answers of a row have a loss or the last alone.

    Returns:
        The rows that came out, in order, and the counts.

    Raises:
        TemplateError: The chat template refuses a row; names the row.
    """

    def tokenize(row: Demonstration, counts: RowCounts) -> list[TokenizedDemonstration]:
        if train_on == "last":
            row = replace(row, context=max(row.context, len(row.messages) - 1))
        return _demonstrations(row, renderer, max_seq_length, overlong, counts)

    return _tokenize(rows, tokenize, observer)


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

    def tokenize(row: Pair, counts: RowCounts) -> list[TokenizedPair]:
        pair = _pair(row, renderer, max_seq_length, overlong, counts)
        return [] if pair is None else [pair]

    return _tokenize(rows, tokenize, observer)


def _tokenize(
    rows: Sequence[R], tokenize: Callable[[R, RowCounts], list[T]], observer: Observer | None
) -> tuple[list[T], RowCounts]:
    observer = observer or Silent()
    counts = RowCounts(rows_in=len(rows))
    out: list[T] = []
    for done, row in enumerate(rows, 1):
        try:
            out += tokenize(row, counts)
        except TemplateError as error:
            raise TemplateError(f"{row.source}: {error.message}") from error
        if done % _PROGRESS_EVERY == 0 or done == len(rows):
            observer.progress(done, len(rows), "rows tokenized")
    counts.used = len(out)
    counts.check()
    return out, counts


def _demonstrations(
    row: Demonstration, renderer: Renderer, limit: int, overlong: Overlong, counts: RowCounts
) -> list[TokenizedDemonstration]:
    """A row as it is, or as one row per answer where the template rewrites earlier turns."""
    places = answers(row.messages, row.context, row.masked)
    found = _demonstration(row, renderer, limit, overlong, counts)
    if found is None:
        counts.change("split_by_answer", row.source)
        counts.split += len(places) - 1
        parts = [Demonstration(row.messages[: place + 1], row.source, context=place) for place in places]
        found = [one for part in parts for one in _demonstration(part, renderer, limit, overlong, counts) or ()]
    if found:
        answered = ((row.messages[:place], row.messages[place : place + 1]) for place in places)
        _count_changes(renderer, row.source, counts, *answered)
    return found


def _demonstration(
    row: Demonstration, renderer: Renderer, limit: int, overlong: Overlong, counts: RowCounts
) -> list[TokenizedDemonstration] | None:
    """A row, or none where it was left out; None where the template rewrites an answer of it."""
    messages, context, masked = row.messages, row.context, row.masked
    rendered = renderer.conversation(messages, context, masked)
    while rendered is not None and len(rendered.input_ids) > limit:
        shorter = _without_oldest_turns(messages[:-1])
        if shorter is None:
            break
        gone = len(messages) - 1 - len(shorter)
        context, masked = max(0, context - gone), tuple(place - gone for place in masked if place >= gone)
        messages = (*shorter, messages[-1])
        rendered = renderer.conversation(messages, context, masked)
    if rendered is None:
        return None
    ids, mask = rendered.input_ids, rendered.response_mask
    prompt_length = len(ids) if len(ids) <= limit else len(renderer.prompt_ids(messages[:-1]))
    if len(ids) > limit and not _may_cut(prompt_length, limit, overlong, row.source, counts):
        return []
    if len(messages) < len(row.messages):
        counts.change("turns_removed", row.source)
    return [TokenizedDemonstration(ids[:limit], mask[:limit], row.source)]


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
    _count_changes(renderer, row.source, counts, (prompt, row.chosen), (prompt, row.rejected))
    return TokenizedPair(ids, chosen[:room], rejected[:room], row.source, row.id)


def _count_changes(
    renderer: Renderer,
    source: Source,
    counts: RowCounts,
    *answered: tuple[Sequence[Message], Sequence[Message]],
) -> None:
    """Count a row by what the chat template did to its system turn and to the thoughts before its answers.

    Args:
        renderer: The model's.
        source: The row.
        counts: Where to count.
        answered: Every answer that is trained on with its prompt.
    """
    if renderer.text is None:
        return
    if answered[-1][0][0].role == "system":
        if renderer.text.moves_system_turn:
            counts.change("system_in_user_turn", source)
        elif renderer.text.drops_system_turn:
            counts.change("system_turn_dropped", source)
    for reason in dict.fromkeys(renderer.reasoning_of(*each) for each in answered):
        if reason is not None:
            counts.change(reason, source)


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
