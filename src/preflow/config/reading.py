"""How the rows of data files are read where more than one way is right."""

from typing import Literal

from preflow.config.base import Frozen


class ReadingSettings(Frozen):
    """How rows are read where a file alone does not say it."""

    multi_turn_answers: Literal["first_difference", "all"] = "first_difference"
    """Preference pairs whose chosen and rejected conversations differ in several turns: the first answers that differ
    are compared and later turns left out (``first_difference``), or all later turns are the response (``all``)."""
    desirable_rows: Literal["set_aside", "demonstrations"] = "set_aside"
    """Rows with a verdict on one answer (KTO's ``label``), named as demonstrations: quarantined, or those with a
    favourable verdict train."""
    text_column: Literal["set_aside", "turns"] = "set_aside"
    """Rows with a column ``text`` alone: quarantined, or read as a transcript (``Human:``, ``### Assistant:``, ...)."""
