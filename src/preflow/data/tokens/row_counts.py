"""Where rows went: how many are used, dropped or changed, by reason, and what to do about each reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from preflow.data.rows import Source
from preflow.errors import DataError
from preflow.observer import UserText

_EXAMPLES = 5
#: What a chat template did to rows, by reason: in words, with the remedy that applies.
TEMPLATE_REASONS = {
    "system_in_user_turn": UserText(
        "the chat template has no system turn, so the system text stands before the first user turn; do the same at "
        "inference, or set system_turn: drop"
    ),
    "system_turn_dropped": UserText("the system turn is removed, as system_turn: drop says"),
    "reasoning_lost": UserText(
        "the chat template leaves reasoning out, so it is not learnt; set chat_template to one that writes "
        "reasoning_content (qwen3)"
    ),
    "empty_think_block": UserText(
        "the chat template writes an empty <think> block into answers without reasoning, so answering without thoughts "
        "is learnt; give reasoning_content, or a chat_template without thoughts (qwen3-instruct-2507)"
    ),
    "split_by_answer": UserText(
        "the chat template rewrites earlier turns, so each answer is trained in a row of its own; sft.train_on: last "
        "trains the last answer alone"
    ),
}


@dataclass(slots=True)
class RowCounts:
    """Where the rows of one call went: rows in + rows made by splitting = used + dropped, by reason.

    Attributes:
        rows_in: Rows given.
        split: Rows more, as a row becomes one per answer where the chat template rewrites earlier turns.
        used: Rows that came out.
        dropped: Reason to number of rows that did not.
        changed: Reason to number of used rows that lost something (old turns, the end of a response).
        examples: Reason to the first few rows, as ``file:row``.
    """

    rows_in: int = 0
    split: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, source: Source) -> None:
        """Count a row that does not come out."""
        self.dropped[reason] += 1
        self._example(reason, source)

    def change(self, reason: str, source: Source) -> None:
        """Count a used row that lost something."""
        self.changed[reason] += 1
        self._example(reason, source)

    def add(self, later: "RowCounts") -> None:
        """Count the rows that follow too."""
        self.rows_in += later.rows_in
        self.split += later.split
        self.used += later.used
        self.dropped += later.dropped
        self.changed += later.changed
        for reason, named in later.examples.items():
            self.examples[reason] = [*self.examples.get(reason, []), *named][:_EXAMPLES]

    def check(self) -> None:
        """Raise unless rows in + rows made by splitting = used + dropped.

        Raises:
            DataError: The sums differ: an error of the program, not of the data.
        """
        if self.rows_in + self.split != self.used + self.dropped.total():
            raise DataError(
                f"{self.rows_in} rows in and {self.split} by splitting, but {self.used} used + "
                f"{self.dropped.total()} dropped ({dict(self.dropped)})"
            )

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "rows_in": self.rows_in,
            "split": self.split,
            "used": self.used,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
            "examples": dict(sorted(self.examples.items())),
        }

    def __str__(self) -> str:
        split = f" ({self.rows_in + self.split} as one per answer)" if self.split else ""
        whole = f"{self.rows_in} rows in{split}, {self.used} used"
        return UserText(
            "; ".join([whole, *self._listed("dropped", self.dropped), *self._listed("changed", self.changed)])
        )

    def _listed(self, verb: str, reasons: Counter[str]) -> list[UserText]:
        return [
            UserText(
                f"{count} {verb}: {reason} ({', '.join(self.examples[reason])}{', ...' if count > _EXAMPLES else ''})"
            )
            for reason, count in sorted(reasons.items())
        ]

    def _example(self, reason: str, source: Source) -> None:
        named = self.examples.setdefault(reason, [])
        if len(named) < _EXAMPLES:
            named.append(str(source))


def template_notes(counts: RowCounts) -> Iterator[tuple[str, UserText]]:
    """Each thing that the chat template did to rows: its reason, and a sentence with its count and its remedy."""
    for reason, words in TEMPLATE_REASONS.items():
        if counts.changed[reason]:
            yield reason, UserText(f"{counts.changed[reason]} of {counts.rows_in} rows ({reason}): {words}")
