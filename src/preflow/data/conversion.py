"""From the columns that users write to the internal form. What is wrong with a row has a name here."""

from collections.abc import Sequence

from preflow.config.validation import ReadingSettings
from preflow.data.files.raw_rows import RawRow
from preflow.data.row_formats import table, verdicts
from preflow.data.row_formats.conditions import refuse_unfit
from preflow.data.row_formats.demonstrations import got, prompt_name
from preflow.data.row_formats.names import ANSWERS, CONVERSATIONS, PROMPTS, ROLE_KEYS, ROLES
from preflow.data.row_formats.pairs import Comparison
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row, RowNotes
from preflow.data.row_formats.scores import compare_scores
from preflow.data.row_formats.turns import Turn, messages
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.text import is_blank

__all__ = ["RowProblem", "read_demonstration", "read_pairs", "to_demonstration", "to_pair"]
_DEFAULT = ReadingSettings()


def to_demonstration(raw: RawRow, settings: ReadingSettings = _DEFAULT) -> Demonstration:
    """Convert a row of any format of demonstrations (``preflow.data.row_formats.table``).

    Raises:
        RowProblem: The row cannot be used.
    """
    return read_demonstration(raw, settings)[0]


def to_pair(raw: RawRow, settings: ReadingSettings = _DEFAULT) -> Pair:
    """Convert a row of any format of preference pairs; of a row that gives several, the first.

    Raises:
        RowProblem: The row cannot be used.
    """
    return read_pairs(raw, settings)[0][0]


def read_demonstration(raw: RawRow, settings: ReadingSettings) -> tuple[Demonstration, RowNotes]:
    """A demonstration, and what is to be said of its row.

    Raises:
        RowProblem: The row cannot be used.
    """
    row = _open(raw, settings)
    form = table.recognise(row, "demonstrations")
    pair = table.recognise(row, "preferences")
    if pair is not None and not _is_also_shown(row, form):
        raise RowProblem(
            "wrong_kind", f"the row is a preference pair ({pair.name}: {got(row)}), expected a demonstration; "
            "name its file in dpo.dataset"
        )  # fmt: skip
    refuse_unfit(row)
    verdicts.refuse_verdict(row)
    if form is None:
        raise _unknown(row, _missing_of_demonstration(row))
    turns, context = form.read(row)
    _check_conversation(messages(turns), row, form.name)
    turns = _until_last_trained(turns, context)
    masked = tuple(
        place for place, turn in enumerate(turns) if not turn.trained and place >= context
    )  # only turns of the assistant can be untrained
    shown = Demonstration(messages(turns), Source(raw.file, raw.row), context=context, masked=masked)
    return shown, _notes(row, form.name)


def read_pairs(raw: RawRow, settings: ReadingSettings) -> tuple[list[Pair], RowNotes]:
    """The pairs that a row holds, at least one, and what is to be said of it.

    Raises:
        RowProblem: The row cannot be used.
    """
    row = _open(raw, settings)
    joined = row.get(verdicts.JOINED)
    form = table.recognise(row, "preferences")
    refuse_unfit(row)
    if form is None:
        if verdicts.has_verdict(row):
            raise verdicts.unpaired(row)
        raise _unknown(row, _missing_of_pair(row))
    comparisons: list[Comparison] = form.read(row)
    source = Source(raw.file, raw.row)
    found = [_pair(row, each, source) for each in comparisons]
    if form.name != "two answers and a winner":  # whose margin may be that of the first over the second
        row.notes.scores = compare_scores(row)
    if joined is not None:
        row.notes.made = True
        row.notes.changed.update(joined)
    return found, _notes(row, table.VERDICT.name if joined is not None else form.name)


def _pair(row: Row, compared: Comparison, source: Source) -> Pair:
    for name, answer in (("chosen", compared.chosen), ("rejected", compared.rejected)):
        _check_conversation(messages(compared.prompt + answer), row, name)
        if len(answer) > 1 and row.settings.multi_turn_answers == "first_difference":
            raise RowProblem(
                "bad_order", f"{name} has {len(answer)} turns after the common prompt, expected one assistant turn"
            )
        answers = [turn.trained for turn in answer if turn.message.role == "assistant"]
        if not any(answers):
            raise RowProblem("nothing_to_train", f"{name} is marked as context, not as an answer")
        if not all(answers):
            raise RowProblem(
                "nothing_to_train",
                f"{name} has {len(answers)} answers, some marked as context: the log-prob of a response is that "
                "of all its answers; expected answers that all count, or context in the common prompt",
            )
    return Pair(messages(compared.prompt), messages(compared.chosen), messages(compared.rejected), source)


def _open(raw: RawRow, settings: ReadingSettings) -> Row:
    if raw.malformed is not None:
        raise RowProblem("malformed_line", raw.malformed)
    return Row.of(raw, settings)


def _is_also_shown(row: Row, form: table.RowFormat | None) -> bool:
    """Whether a pair's row has a demonstration of its own: a whole conversation, or a prompt with a completion."""
    if form is None or not (row.has("chosen") and row.has("rejected")):
        return False
    if form.name == "conversation":
        value = row.peek(row.first(CONVERSATIONS) or "")
        last = value[-1] if isinstance(value, list) and value else None
        said = [last[key] for key in ROLE_KEYS if isinstance(last.get(key), str)] if isinstance(last, dict) else []
        return bool(said) and ROLES.get(said[0].strip().lower()) == "assistant"
    return row.has("completion")


def _missing_of_demonstration(row: Row) -> str:
    """What a row lacks to be a demonstration; never what it has."""
    prompt, answer = prompt_name(row), row.first(ANSWERS)
    if prompt is not None and answer in {None, prompt}:
        return f"an answer ({', '.join(ANSWERS[:4])}, ...) beside '{row.column(prompt)}'"
    if prompt is None and answer is not None:
        return f"a prompt ({', '.join(PROMPTS[:4])}, ...) beside '{row.column(answer)}'"
    return f"{', '.join(CONVERSATIONS[:3])}, or a prompt with an answer ({', '.join(ANSWERS[:4])})"


def _missing_of_pair(row: Row) -> str:
    """What a row lacks to be a pair."""
    beside = row.first((*CONVERSATIONS, *PROMPTS))
    if beside is None:
        return f"a prompt ({', '.join(PROMPTS[:4])}, ...) with chosen and rejected"
    shown = table.recognise(row, "demonstrations") is not None
    hint = "; demonstrations belong in sft.dataset" if shown else ""
    return f"chosen and rejected beside '{row.column(beside)}'{hint}"


def _unknown(row: Row, expected: str) -> RowProblem:
    """Why a row has none of the formats: a column is absent, or null."""
    null = [name for name in row.names() if row.given(name) and not row.has(name)]
    known = {*CONVERSATIONS, *PROMPTS, *ANSWERS}
    for name in null:
        if name in known:
            return RowProblem("missing_value", f"'{name}' is null")
    if row.form is not None:
        expected = f"the columns of format: {row.form} ({table.how(row.form)})"
    return RowProblem("missing_column", f"got {got(row)}; expected {expected}")


def _notes(row: Row, form: str) -> RowNotes:
    row.notes.row_format = form
    row.notes.used, row.notes.columns = row.used(), row.unused()
    return row.notes


def _until_last_trained(turns: Sequence[Turn], context: int) -> tuple[Turn, ...]:
    """The turns up to the last that is learnt: nothing after it can change a loss.

    Raises:
        RowProblem: No turn is learnt.
    """
    answers = [
        place for place, turn in enumerate(turns)
        if place >= context and turn.trained and turn.message.role == "assistant"
    ]  # fmt: skip
    if not answers:
        raise RowProblem("nothing_to_train", "every answer is marked as context (weight: 0, train: false or masked)")
    return tuple(turns[: answers[-1] + 1])


def _check_conversation(turns: Sequence[Message], row: Row, where: str) -> None:
    body = turns[1:] if turns[0].role == "system" else turns
    for index, message in enumerate(body):
        if message.role != ("user", "assistant")[index % 2]:
            position = index + len(turns) - len(body) + 1
            raise RowProblem(
                "bad_order",
                f"turn {position} of {where} is the {message.role}'s; expected user and assistant in turn, "
                "after an optional system turn",
            )
        if is_blank(message.content):
            raise RowProblem("blank_text", f"{where}: the {message.role}'s turn is blank")
    if len(body) % 2 or not body:
        raise RowProblem("ends_on_user", f"{where} does not end with an answer of the assistant")
