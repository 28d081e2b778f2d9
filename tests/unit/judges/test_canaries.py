"""Canaries: an unchanged judge with noise is asked on, another one is refused."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from preflow.errors import JudgeChangedError
from preflow.judges.canaries import check_canaries, keep_canaries
from preflow.judges.verdict import Comparison, Outcome, Verdict

ASKED = [Comparison(f"What is {n}?", "this", "that") for n in range(10)]
#: Gives each stored verdict, which is FIRST, anew.
Reply = Callable[[int], Outcome]


class SimulatedJudge:
    """A judge elsewhere that replies by the number of the question."""

    section = "evaluation.judge"

    def __init__(self, reply: Reply) -> None:
        self.reply, self.canaries = reply, len(ASKED)

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": "judge-1"}

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        for place, one in enumerate(asked):
            yield place, Verdict(self.reply(ASKED.index(one)))


@pytest.fixture
def store() -> Iterator[sqlite3.Connection]:
    """Ten canaries, whose stored verdict is FIRST."""
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.execute("create table verdict (comparison text primary key, outcome text, reason text)")
        keep_canaries(opened, ASKED, len(ASKED))
        rows = [(one.digest(), Outcome.FIRST, "") for one in ASKED]
        opened.executemany("insert into verdict values (?, ?, ?)", rows)
        yield opened


def is_refused(store: sqlite3.Connection, reply: Reply) -> bool:
    try:
        check_canaries(SimulatedJudge(reply), store, lambda text: None)
    except JudgeChangedError:
        return True
    return False


@pytest.mark.parametrize("flips", [0.05, 0.1])
def test_noise_and_garbage_refuse_no_unchanged_judge(store: sqlite3.Connection, flips: float) -> None:
    """P(5 or more of 10 differ) is 0.0016 at 10 % of flips: of 100 judges, 0.16 are expected; one is allowed."""
    draw = random.Random(7)

    def noisy(number: int) -> Outcome:
        if draw.random() < 0.3:
            return Outcome.UNREADABLE
        return Outcome.SECOND if draw.random() < flips else Outcome.FIRST

    assert sum(is_refused(store, noisy) for _ in range(100)) <= 1


def test_a_judge_that_gives_half_of_the_verdicts_or_all_otherwise_is_refused(store: sqlite3.Connection) -> None:
    """With a noise of 10 %, P(5 or more of 10) = 0.0016 and P(4 or more) = 0.0128, by the binomial's terms."""
    for differ, refused in ((4, False), (5, True), (10, True)):
        assert is_refused(store, lambda n: Outcome.SECOND if n < differ else Outcome.FIRST) is refused  # noqa: B023


def test_what_cannot_be_read_is_noted_and_does_not_count(store: sqlite3.Connection) -> None:
    """3 of the 4 that can be read differ: P = 4 x 0.1^3 x 0.9 + 0.1^4 = 0.0037, where 3 of 10 are noise (0.07)."""
    notes: list[str] = []
    check_canaries(SimulatedJudge(lambda n: Outcome.UNREADABLE), store, notes.append)
    garbled = {0: Outcome.SECOND, 1: Outcome.UNREADABLE, 2: Outcome.UNREADABLE}
    check_canaries(SimulatedJudge(lambda n: garbled.get(n, Outcome.FIRST)), store, notes.append)
    assert notes == [
        "judge: of 10 stored verdicts that were asked for again, 10 could not be read",
        "judge: of 10 stored verdicts that were asked for again, 1 came out differently and 2 could not be read",
    ]
    assert not is_refused(store, lambda n: Outcome.SECOND if n < 3 else Outcome.FIRST)
    few = [Outcome.SECOND] * 3 + [Outcome.FIRST] + [Outcome.UNREADABLE] * 6
    with pytest.raises(JudgeChangedError, match="3 of 4 questions"):
        check_canaries(SimulatedJudge(lambda n: few[n]), store, notes.append)
