"""A judge that repeats the verdicts that a run kept, so that its numbers can be computed anew."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from preflow.errors import JudgeError
from preflow.judges.verdict import Comparison, Outcome, Verdict


class KeptVerdicts:
    """Answers from the rows of ``verdicts.json``."""

    def __init__(self, identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Repeat what a judge said.

        Args:
            identity: Of the judge, as ``judge.json`` has it.
            rows: The contents of ``verdicts.json``.
        """
        self.identity = dict(identity)
        self._known: dict[str, Verdict] = {}
        for row in rows:
            comparison = Comparison(row["prompt"], row["first"], row["second"])
            both = zip((comparison, comparison.swapped()), row["verdicts"], row["reasons"], strict=True)
            for asked, outcome, reason in both:
                self._known[asked.digest()] = Verdict(Outcome(outcome), reason)

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        """Each comparison's number and kept verdict.

        Raises:
            JudgeError: There is none of a comparison: what was judged is not what the run kept.
        """
        for number, comparison in enumerate(asked):
            verdict = self._known.get(comparison.digest())
            if verdict is None:
                raise JudgeError(f"no verdict was kept on an answer to {comparison.prompt[:60]!r}")
            yield number, verdict
