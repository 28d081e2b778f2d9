"""The detail of one row and one finding: what was got, where, and what was expected."""

from typing import Any

from numpy.typing import NDArray

from expectations.row_facts import RowFacts
from preflow.data.quality.rows.encoding import has_control, has_mojibake
from preflow.data.quality.sets.similarity import parts_of
from preflow.findings import FINDINGS

_MEASURED = (
    "near_copy",
    "near_duplicate",
    "too_similar",
    "same_in_other_words",
    "text_too_long",
    "wins_everywhere",
    "too_many_tokens",
)
#: Rows whose measures are read together.
_BLOCK = 4096
_WORDS = {
    "duplicate_row": "equals {other}",
    "near_copy": "nearly equals {other}: similarity {measure}",
    "near_duplicate": "nearly equals {other}: similarity {measure}",
    "identical_answers": "chosen and rejected are equal",
    "too_similar": "chosen and rejected are {measure} alike",
    "same_in_other_words": "chosen and rejected are paraphrases: they share {measure} of their meaning",
    "wins_everywhere": "the chosen answer wins against {measure:.0f} prompts",
    "too_many_tokens": "the row has {measure:.0f} tokens",
    "text_too_long": "the row has {measure:.0f} characters",
}


class RowDetails:
    """Details of rows of one kind."""

    def __init__(self, facts: RowFacts) -> None:
        self._facts = facts
        self._rows: dict[int, dict[str, NDArray[Any]]] = {}

    def measure(self, finding: str, row: int) -> float | None:
        """The number that failed its threshold; none for a finding that has no number."""
        if finding not in _MEASURED:
            return None
        start = row - row % _BLOCK
        if start not in self._rows:  # rows are asked for in order, so one block at a time is kept
            self._rows = {start: self._facts.measured(slice(start, min(start + _BLOCK, len(self._facts))))}
        return round(float(self._rows[start][finding][row - start]), 4)

    def text(self, finding: str, row: int, values: dict[str, Any]) -> str:
        """One line about a row that was converted.

        Args:
            finding: What is wrong.
            row: Its place among all rows.
            values: The row in the internal form.
        """
        if finding in ("control_characters", "mojibake"):
            return f"{_side(finding, values)}: {FINDINGS[finding].what}"
        partner, setting = int(self._facts.partners[row]), FINDINGS[finding].setting
        said = _WORDS.get(finding, FINDINGS[finding].what).format(
            other=self._facts.columns.source(partner) if partner >= 0 else "",
            measure=self.measure(finding, row),
        )
        if finding == "too_many_tokens" and self._facts.lost_tokens is not None:
            return f"{said}: {self._facts.lost_tokens[row]} tokens of the response would be lost"
        limit = getattr(self._facts.settings, setting or "", None)
        return said if limit is None else f"{said} (validation.{setting} is {limit})"


def _side(finding: str, values: dict[str, Any]) -> str:
    """Which part of a row has a fault of encoding."""
    check = has_control if finding == "control_characters" else has_mojibake
    parts = parts_of(values)
    names = ("prompt", "completion") if len(parts) == 2 else ("prompt", "chosen", "rejected")
    return ", ".join(name for name, part in zip(names, parts, strict=True) if check(part))
