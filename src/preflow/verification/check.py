"""The outcome of one check, and of those below it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "changed", "missing", "not reachable"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        state: ``missing`` is a file that should be in a place that is there; ``not reachable`` one whose place is not
            (data that were deleted or moved, a base model on another machine).
        detail: What was found, where it is not ``ok``.
        below: Its parts.
    """

    name: str
    state: State
    detail: str = ""
    below: tuple["Check", ...] = ()

    def all(self) -> Iterator["Check"]:
        """This check and all below it."""
        yield self
        for each in self.below:
            yield from each.all()

    def failed(self) -> list["Check"]:
        """Those that are not ``ok``, first to last, each with its own detail."""
        return [each for each in self.all() if each.state != "ok" and not each.below]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail,
            "below": [each.to_json() for each in self.below],
        }


def together(name: str, *below: Check) -> Check:
    """A check of which all parts must be ``ok``; else it has the state of the worst."""
    worst: tuple[State, ...] = ("changed", "missing", "not reachable", "ok")
    state: State = min((each.state for each in below), key=worst.index, default="ok")
    return Check(name, state, below=below)
