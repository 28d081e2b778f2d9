"""What is wrong with a row, by name."""

from preflow.data.text import printable


class RowProblem(Exception):  # noqa: N818 - data validation records it as a finding and never lets it out
    """A row that cannot be used.

    Attributes:
        finding: One of ``preflow.findings.FORM``.
        detail: What was got, where in the row, what was expected.
    """

    def __init__(self, finding: str, detail: str) -> None:
        super().__init__(f"{finding}: {detail}")
        self.finding = finding
        self.detail = printable(detail)
