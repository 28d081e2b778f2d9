"""Pairs from several answers to one prompt: two with a verdict on them (arenas), or many with scores or ranks."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from preflow.data.row_formats.cells import is_null, number, parse_list, truth
from preflow.data.row_formats.demonstrations import asked, got, prompt_name
from preflow.data.row_formats.names import (
    CANDIDATES,
    CONTENT_KEYS,
    FINISH_REASONS,
    FINISHED,
    RANKS,
    SCORES,
    SHP_ANSWERS,
    TRUNCATED,
    WINNERS,
    normal,
)
from preflow.data.row_formats.pairs import Comparison, Turns, compared, has_preference
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.turns import Turn, read_answer, refuse_unfinished
from preflow.data.rows import Message
from preflow.redaction import quoted

_BASES = ("response", "answer", "completion", "output", "conversation", "reply", "text", "summary", "human_ref")
_ENDINGS = (("_a", "_b"), ("_0", "_1"), ("_1", "_2"), ("1", "2"))
#: Columns of two answers, and the ends of their names.
_TWO = tuple((base + one, base + two, (one, two)) for base in _BASES for one, two in _ENDINGS)
TWO_ANSWERS = tuple(name for names in _TWO for name in names[:2])
TWO_VERDICTS = tuple(
    name + end for name in ("winner_model", *SCORES, "overall_score") for ends in _ENDINGS for end in ends
)
_TIES = ("tie", "both", "draw", "equal", "neither", "none")
_TEXT_KEYS = (*CONTENT_KEYS, "response", "answer", "completion", "output")


def two_names(row: Row) -> tuple[str, str, tuple[str, str]] | None:
    """The columns of two answers that stand against each other, and how their names end."""
    return next((names for names in _TWO if row.has(names[0]) and row.has(names[1])), None)


def has_two(row: Row) -> bool:
    """Whether a row has two answers and says, or could say, which is better."""
    return two_names(row) is not None


def two(row: Row) -> list[Comparison]:
    """Two answers with a verdict; a tie is no preference.

    Raises:
        RowProblem: It is a tie, or there is no verdict.
    """
    names = two_names(row)
    assert names is not None, "recognised by it"
    first, second, endings = names
    _refuse_unfinished(row, endings)
    better = _winner(row, endings)
    answers = _texts(row, first), _texts(row, second)
    chosen, rejected = (answers[better], answers[1 - better])
    columns = (first, second) if better == 0 else (second, first)
    row.notes.scores = _agreement(row, endings, better)
    read = []
    for value, column in zip((chosen, rejected), columns, strict=True):
        read.append(_several(row, value, column) if _is_texts(value) else read_answer(value, column, row.notes))
    return [compared(row, read[0], read[1], columns, from_prompt=_is_texts(chosen) and _is_texts(rejected))]


def _agreement(row: Row, endings: tuple[str, str], better: int) -> str | None:
    """What the scores of both answers say of the verdict; none where there are none."""
    for _, scores in _scores(row, endings):
        difference = scores[better] - scores[1 - better]
        return "agree" if difference > 0 else "inverted" if difference < 0 else "tie"
    return None


def _refuse_unfinished(row: Row, endings: tuple[str, str]) -> None:
    """Refuse two answers of which one was cut while it was sampled: ``finished_a``, ``finish_reason_1``."""
    for ending in endings:
        said = {name: row.peek(f"{name}{ending}") for name in (*FINISHED, *TRUNCATED, *FINISH_REASONS)}
        refuse_unfinished(said, f"the answer {ending.strip('_')}")
        row.use(*(f"{name}{ending}" for name in said))


def _texts(row: Row, name: str) -> Any:
    """An answer; a list of texts that a cell holds (one for each question) as a list."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip().startswith('["'):
        found = parse_list(value)
        return found if _is_texts(found) else value
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _several(row: Row, answers: list[str], column: str) -> Turns:
    """A conversation of several questions, each with its answer."""
    name = prompt_name(row)
    questions: Any = _texts(row, name) if name is not None else None
    if not _is_texts(questions) or len(questions) != len(answers):
        raise RowProblem("wrong_type", f"'{column}' is a list of {len(answers)} texts, expected as many prompts")
    turns: list[Turn] = []
    for question, answer in zip(questions, answers, strict=True):
        turns += [Turn(Message("user", question)), *read_answer(answer, column, row.notes)]
    row.notes.changed.add("cell_parsed")
    return tuple(turns)


def _winner(row: Row, endings: tuple[str, str]) -> int:
    """Which of the two is better, 0 or 1."""
    one_hot = [truth(row.peek(f"winner_model{ending}")) for ending in endings]
    if any(said is not None for said in one_hot):
        row.use(*(f"winner_model{ending}" for ending in endings), "winner_tie")
        better = None if bool(one_hot[0]) == bool(one_hot[1]) else int(bool(one_hot[1]))
        return _decided(row, better, "winner_model_a, winner_model_b")
    name = row.first(WINNERS)
    if name is not None:
        row.use(*(f"model{ending}" for ending in endings))
        return _decided(row, _verdict(row, row.get(name), name, endings), row.column(name))
    for base, (first, second) in _scores(row, endings):
        better = 0 if first > second else 1 if second > first else None
        return _decided(row, better, f"{base}{endings[0]}, {base}{endings[1]}")
    if (null := row.first(WINNERS, null=True)) is not None:
        raise RowProblem("missing_value", f"'{row.column(null)}' is null")
    raise RowProblem(
        "missing_column", f"two answers and no column that names the better one; got {got(row)}; expected winner"
    )


def _scores(row: Row, endings: tuple[str, str]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Columns with both answers' scores: how their names begin, and the two numbers."""
    for base in (*SCORES, "overall_score"):
        first, second = (number(row.peek(base + ending)) for ending in endings)
        if first is not None and second is not None:
            row.use(*(base + ending for ending in endings))
            yield base, (first, second)


def _decided(row: Row, better: int | None, column: str) -> int:
    if better is None:
        raise RowProblem("no_preference", f"{column}: a tie")
    return better


def _verdict(row: Row, value: Any, name: str, endings: tuple[str, str]) -> int | None:
    """What a verdict names: 0 the first answer, 1 the second, none a tie."""
    whole = number(value)
    columns = two_names(row) or ("", "")
    if columns[:2] == SHP_ANSWERS and name == "labels" and whole in (0, 1):
        return 0 if whole == 1 else 1
    if whole is not None and endings != ("_a", "_b") and whole in (places := [int(end.strip("_")) for end in endings]):
        return places.index(int(whole))
    word = normal(value) if isinstance(value, str) else ""
    if any(word == tie or word.startswith(f"{tie}_") or word == f"{tie}bad" for tie in _TIES):
        return None
    models = [row.peek(f"model{ending}") for ending in endings]
    if isinstance(value, str) and models.count(value) == 1:
        return models.index(value)
    for place, ending in enumerate(endings):
        names = {f"{base}{ending}" for base in ("model", *_BASES)}
        if word in {ending.strip("_"), ("left", "right")[place], columns[place], *names}:
            return place
    raise RowProblem(
        "wrong_type",
        f"'{row.column(name)}' is {quoted(repr(value))}, expected model{endings[0]}, model{endings[1]} or tie",
    )


def unclear_numbers(rows: Iterable[Row]) -> str | None:
    """Which numbers of a source's rows name one of two answers without telling which; none where that is clear.

    A winner of 0 or 1 beside ``response_1`` and ``response_2`` may count from zero, and -3 to 3 is a scale: read row by
    row, a 1 would be the first answer. One more number than those of both answers stands for a tie.
    """
    said: dict[tuple[str, str, frozenset[float]], set[float]] = {}
    for row in rows:
        names, column = two_names(row), row.first(WINNERS)
        value = None if column is None else number(row.peek(column))
        if names is None or column is None or value is None or names[2] == ("_a", "_b") or has_preference(row):
            continue
        places = frozenset(float(end.strip("_")) for end in names[2])
        said.setdefault((row.column(column), f"{names[0]} and {names[1]}", places), set()).add(value)
    for (column, answers, places), values in said.items():
        other = values - places
        if other and not (places <= values and len(other) == 1 and 0 <= min(other) <= 2):
            numbers = ", ".join(f"{value:g}" for value in sorted(values)[:8])
            return f"'{column}' is {numbers} beside {answers}"
    return None


def ranked_name(row: Row) -> str | None:
    """The column of several answers with their scores or ranks, or Alpaca's list of outputs, the best first."""
    for name in (*CANDIDATES, "output"):
        value = row.peek(name)
        if isinstance(value, list) and len(value) > 1 and all(isinstance(item, str | dict) for item in value):
            return name
    return None


def has_ranking(row: Row) -> bool:
    """Whether a row has a prompt and several answers in an order."""
    return ranked_name(row) is not None and prompt_name(row) is not None


def ranking(row: Row) -> list[Comparison]:
    """Every pair of answers of which one is better (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).

    Raises:
        RowProblem: There are no scores or ranks, or all are equal.
    """
    name = ranked_name(row)
    assert name is not None, "recognised by it"
    items = row.get(name)
    worth = _worth(row, items, name)
    answers = [
        None if _is_cut(item, name) else read_answer(_said(item, f"{name}[{place}]"), f"{name}[{place}]", row.notes)
        for place, item in enumerate(items)
    ]
    prompt = asked(row)
    found = []
    for one, two in combinations(sorted(range(len(items)), key=lambda place: -worth[place]), 2):
        better, worse = answers[one], answers[two]
        if better is not None and worse is not None and worth[one] > worth[two]:
            found.append(Comparison(prompt, better, worse))
    if not found:
        detail = f"all answers of '{row.column(name)}' have one score"
        if None in answers:
            detail = f"no two answers of '{row.column(name)}' came to their end and have different scores"
        raise RowProblem("no_preference", detail)
    row.notes.made = True
    row.notes.changed.add("ranking_compared")
    return found


def _is_cut(item: Any, where: str) -> bool:
    try:
        refuse_unfinished(item if isinstance(item, dict) else {}, where)
    except RowProblem:
        return True
    return False


def _said(item: Any, where: str) -> Any:
    if isinstance(item, str):
        return item
    text = next((item[key] for key in _TEXT_KEYS if not is_null(item.get(key))), None)
    if text is None:
        raise RowProblem("missing_value", f"{where} has no text; got {', '.join(map(str, item))}")
    return text


def _worth(row: Row, items: list[Any], name: str) -> list[float]:
    """How good each answer is: a number that is higher for a better one."""
    for names, sign in ((SCORES, 1.0), (RANKS, -1.0)):
        for key in names:
            beside = row.peek(key)
            if isinstance(beside, list) and len(beside) == len(items):
                values = [number(value) for value in beside]
                row.use(key)
            else:
                values = [number(item.get(key)) if isinstance(item, dict) else None for item in items]
            if all(value is not None for value in values):
                return [sign * (value or 0.0) for value in values]
    if any(isinstance(row.peek(key), list) for key in (*SCORES, *RANKS)):
        raise RowProblem("missing_value", f"an answer of '{row.column(name)}' has neither a score nor a rank")
    if name == "output":
        return [-float(place) for place in range(len(items))]
    raise RowProblem(
        "missing_column",
        f"'{row.column(name)}' has {len(items)} answers without scores or ranks; expected a list scores",
    )
