"""The one list of formats of rows: how each is recognised, read, said in a line, and an example of it.

The first format that recognises a row reads it. The documents' table and the tests are made from this list.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from preflow.data.row_formats import candidates, demonstrations, names, pairs, verdicts
from preflow.data.row_formats.row import Row

Kind = Literal["demonstrations", "preferences"]
_ASK, _SAY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
_NO = {"role": "assistant", "content": "What?"}


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A way of writing rows.

    Attributes:
        name: As reports and documents call it.
        how: Which columns become what, in one line.
        example: A row of the format; the examples of a kind all say the same.
        recognises: Whether a row is written so.
        read: A recognised row as turns: a conversation with the number of its leading turns that are context, or
            comparisons.
    """

    name: str
    how: str
    example: dict[str, Any]
    recognises: Callable[[Row], bool]
    read: Callable[[Row], Any]


#: Formats of demonstrations.
DEMONSTRATIONS = (
    RowFormat(
        "conversation",
        "messages or conversations (role/content or from/value) -> turns",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        demonstrations.has_conversation,
        demonstrations.conversation,
    ),
    RowFormat(
        "alpaca",
        "instruction + input -> prompt, output -> completion; system and history -> earlier turns",
        {"instruction": "Hi", "input": "", "output": "Hello"},
        demonstrations.is_alpaca,
        demonstrations.prompt_and_answer,
    ),
    RowFormat(
        "prompt and answer",
        "prompt (question, query, ...) -> prompt, completion (response, answer, output, ...) -> completion",
        {"prompt": "Hi", "completion": "Hello"},
        demonstrations.has_prompt_and_answer,
        demonstrations.prompt_and_answer,
    ),
    RowFormat(
        "text",
        "text -> turns, where the recipe gives format: text",
        {"text": "### Human: Hi### Assistant: Hello"},
        demonstrations.has_text_alone,
        demonstrations.text_alone,
    ),
)
#: Formats of preference pairs.
PREFERENCES = (
    RowFormat(
        "preferred output",
        "input.messages -> prompt, preferred_output -> chosen, non_preferred_output -> rejected",
        {"input": {"messages": [_ASK]}, "preferred_output": [_SAY], "non_preferred_output": [_NO]},
        pairs.has_preferred_output,
        pairs.preferred_output,
    ),
    RowFormat(
        "chosen and rejected",
        "prompt (question, messages, or the shared prefix) -> prompt, chosen (chosen_response, ...) -> chosen, "
        "rejected (rejected_response, ...) -> rejected",
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        pairs.has_preference,
        pairs.preference,
    ),
    RowFormat(
        "rejected response",
        "messages without its last turn -> prompt, the last turn -> chosen, rejected_response -> rejected",
        {"messages": [_ASK, _SAY], "rejected_response": "What?"},
        pairs.has_rejected_alone,
        pairs.rejected_alone,
    ),
    RowFormat(
        "two answers and a winner",
        "prompt -> prompt, response_a and response_b (answer_0 and answer_1, ...) by winner -> chosen and rejected",
        {"prompt": "Hi", "response_a": "What?", "response_b": "Hello", "winner": "model_b"},
        candidates.has_two,
        candidates.two,
    ),
    RowFormat(
        "ranking",
        "prompt -> prompt, each two of responses (completions, ...) by scores or ranks -> chosen and rejected",
        {"prompt": "Hi", "responses": ["What?", "Hello"], "scores": [1, 5]},
        candidates.has_ranking,
        candidates.ranking,
    ),
)
#: Rows with a verdict on one answer: pairs where a prompt has both verdicts, demonstrations where the recipe wants it.
VERDICT = RowFormat(
    "answer with a verdict",
    "label (or kto_tag, is_desirable): two rows of one prompt -> chosen (true) and rejected (false)",
    {"prompt": "Hi", "completion": "Hello", "label": True},
    verdicts.has_verdict,
    demonstrations.prompt_and_answer,
)
_BOTH, _VERDICT = "chosen and rejected", "verdict"
#: What columns become, in the order in which it is said; what a format's own columns become comes first.
_BECOME: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("system turn", names.SYSTEMS),
    ("earlier turns", (names.HISTORY,)),
    ("prompt", (*names.PROMPTS, *names.ADDITIONS)),
    ("turns", (*names.CONVERSATIONS, "text")),
    ("completion", names.ANSWERS),
    ("chosen", tuple(better for better, _ in names.PREFERENCES)),
    ("rejected", (*(worse for _, worse in names.PREFERENCES), *names.REJECTED_ALONE)),
    ("reasoning", names.REASONING),
)
_OWN: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "chosen and rejected": (("prompt", names.CONVERSATIONS),),
    "rejected response": (("prompt and chosen", names.CONVERSATIONS),),
    "two answers and a winner": (
        (_BOTH, candidates.TWO_ANSWERS),
        (_VERDICT, (*names.WINNERS, *candidates.TWO_VERDICTS)),
        ("prompt", names.CONVERSATIONS),
    ),
    "ranking": ((_BOTH, (*names.CANDIDATES, "output")), (_VERDICT, (*names.SCORES, *names.RANKS))),
}
FORMATS: dict[Kind, tuple[RowFormat, ...]] = {"demonstrations": DEMONSTRATIONS, "preferences": PREFERENCES}


def recognise(row: Row, kind: Kind) -> RowFormat | None:
    """The format of a row that is read as one kind; none where it has no format of that kind, or not the recipe's."""
    forms = FORMATS[kind]
    if row.form not in {None, VERDICT.name}:
        forms = tuple(form for form in forms if form.name == row.form)
    return next((form for form in forms if form.recognises(row)), None)


def kinds(row: Row) -> list[tuple[Kind, RowFormat]]:
    """What a row can be read as, by its columns alone.

    A pair may also have columns of a demonstration: the conversation with its better answer, or an instruction. Only
    where such columns give another answer than the pair is the row both.
    """
    pair = recognise(row, "preferences")
    if pair is not None:
        both = row.has("completion") and row.has("chosen")
        shown = recognise(row, "demonstrations") if both else None
        found: list[tuple[Kind, RowFormat]] = [("preferences", pair)]
        return found if shown is None else [*found, ("demonstrations", shown)]
    if VERDICT.recognises(row):
        return [("preferences", VERDICT)]
    shown = recognise(row, "demonstrations")
    return [] if shown is None else [("demonstrations", shown)]


def how(name: str) -> str:
    """Which columns of a format become what."""
    return next(form.how for form in (*DEMONSTRATIONS, *PREFERENCES, VERDICT) if form.name == name)


def described(name: str, used: Iterable[tuple[str, str]]) -> str:
    """Which columns of a file became what, in one line.

    Args:
        name: The format that was recognised.
        used: Columns that were used, as the file names them, each with its compared name.
    """
    if name == VERDICT.name:  # joined from two rows, whose columns are gone
        return VERDICT.how
    found: dict[str, dict[str, None]] = {}
    for column, known in used:
        become = next((what for what, each in (*_OWN.get(name, ()), *_BECOME) if known in each), None)
        if become is not None:
            found.setdefault(become, {})[column] = None
    verdict = f" by {' + '.join(found.pop(_VERDICT))}" if _VERDICT in found else ""
    order = [what for what, _ in (*_BECOME, *_OWN.get(name, ()))]
    lines = [
        f"{' + '.join(found[what])}{verdict if what == _BOTH else ''} -> {what}"
        for what in dict.fromkeys(order)
        if what in found
    ]
    if name == "chosen and rejected" and "prompt" not in found:
        lines.insert(0, "what both begin with -> prompt")
    return ", ".join(lines)
