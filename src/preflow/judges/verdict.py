"""What a judge is asked, what it says, and the protocol that every kind of judge follows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from preflow.fingerprints.files import json_digest


class Outcome(StrEnum):
    """What a judge says of two answers, by the place in which they were shown."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    UNREADABLE = "unreadable"
    """The reply names no outcome: it is counted, and is never a tie."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, in the order in which a judge is shown them.

    Attributes:
        prompt: What was asked, as text.
        first: The answer that is shown first.
        second: The other one.
    """

    prompt: str
    first: str
    second: str

    def swapped(self) -> "Comparison":
        """The same answers in the other order."""
        return Comparison(self.prompt, self.second, self.first)

    def digest(self) -> str:
        """SHA-256 of the three texts."""
        return json_digest([self.prompt, self.first, self.second])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict with its own words, cut."""

    outcome: Outcome
    reason: str = ""


class Judge(Protocol):
    """One kind of judge; one that scores each answer alone is a ``ScoringJudge`` too."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides a verdict besides the texts, as JSON: what is stored is found by it."""
        ...

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        """Each comparison's number and verdict, as soon as it is there, in any order."""
        ...


@runtime_checkable
class RemoteJudge(Judge, Protocol):
    """A judge elsewhere, which may change without a sign.

    Attributes:
        section: Where the recipe describes it.
        canaries: How many stored verdicts are asked for again before the next new one; 0 once they were.
    """

    section: str
    canaries: int


@runtime_checkable
class ScoringJudge(Protocol):
    """A judge that scores each answer alone, so that scores of several answers order them."""

    def scores(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each prompt with its answer, N of them."""
        ...
