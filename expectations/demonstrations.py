"""What demonstrations must be."""

import great_expectations as gx

from expectations.suites import new_suite
from preflow.config import ValidationSettings
from preflow.data.conversion import ROW_FINDINGS

#: A demonstration has one answer, so nothing in it can differ.
FINDINGS = tuple(finding for finding in ROW_FINDINGS if finding != "prompt_differs")


def suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """Enough rows; in each of them the required columns, their types, roles in order, text; no exact duplicates."""
    return new_suite("demonstrations", settings, FINDINGS)
