"""What preference pairs must be."""

import great_expectations as gx
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.metadata_types import FailureSeverity

from expectations.suites import new_suite
from preflow.config import ValidationSettings
from preflow.data.conversion import ROW_FINDINGS

IDENTICAL_ANSWERS = "identical_answers"


def suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """As for demonstrations, and chosen says something else than rejected, up to Unicode form, case and white space."""
    differ = ExpectColumnValuesToBeInSet(
        column="same_answers",
        value_set=[False],
        severity=FailureSeverity.WARNING,
        description="chosen and rejected differ after normalisation",
        meta={"finding": IDENTICAL_ANSWERS},
    )
    return new_suite("preferences", settings, ROW_FINDINGS, [differ])
