"""One line of ``preflow doctor``."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a line is: a run would work, would work less well, or would not work."""

    ok = "ok"
    warning = "warning"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and what was found.

    Attributes:
        name: What was looked at.
        level: How serious it is.
        found: What was found, in a few words.
        remedy: What to do; empty where there is nothing to do.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The line for programs."""
        return {**asdict(self), "level": str(self.level)}


def ok(name: str, found: str) -> Check:
    """A line about what works."""
    return Check(name, Level.ok, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """A line about what works less well."""
    return Check(name, Level.warning, found, remedy)


def failed(name: str, found: str, remedy: str) -> Check:
    """A line about what would end or hinder a run."""
    return Check(name, Level.failed, found, remedy)
