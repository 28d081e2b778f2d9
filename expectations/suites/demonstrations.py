"""What demonstrations must be."""

import great_expectations as gx

from expectations.suites.custom import never
from expectations.suites.running import new_suite
from expectations.suites.shared import of_rows, of_sets
from preflow.config.validation import ValidationSettings


def rows_suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """In each row columns, types, roles in order, sound text; no copies; one answer to one prompt."""
    conflicts = never("conflicting_completions", settings)
    return new_suite("demonstrations: rows", settings, [*of_rows(settings), conflicts])


def set_suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """Enough rows, of enough prompts and kinds."""
    return new_suite("demonstrations: set", settings, of_sets("demonstrations", settings))
