"""A run finding: what it is called, what shows it, and what to change."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunFinding:
    """One thing that a run's measurements show to be wrong.

    Attributes:
        name: As the documentation calls it.
        what: In words, for people.
        evidence: Numbers of this run.
        remedy: The one change to try first, with its value.
        strength: How far the evidence lies beyond its limit: 0.5 at the limit, towards 1 far beyond it. Findings are
            shown in this order.
        rows: Rows that show it, by file and row.
    """

    name: str
    what: str
    evidence: str
    remedy: str
    strength: float
    rows: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "rows": list(self.rows)}

    def sentence(self) -> str:
        """What it says on one line."""
        return f"{self.name}: {self.what} ({self.evidence}). Try {self.remedy}."


def beyond(ratio: float) -> float:
    """The strength of evidence that is ``ratio`` times its limit: 0.5 at 1, 0.9 at 9."""
    return ratio / (1 + ratio)
