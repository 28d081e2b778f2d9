"""What is wrong with a row, by name."""

from preflow.redaction import cut, escaped

#: Characters of a detail: it may quote what a row holds.
_LONGEST = 600


class RowProblem(Exception):  # noqa: N818 - data validation records it as a finding and never lets it out
    """A row that cannot be used.

    Attributes:
        finding: One of ``preflow.findings.FORM``.
        detail: What was got, where in the row, what was expected.
    """

    def __init__(self, finding: str, detail: str) -> None:
        self.finding = finding
        self.detail = escaped(cut(detail, _LONGEST))
        super().__init__(f"{finding}: {self.detail}")
