"""Expectations of our own: Great Expectations' with the findings' sentences. Each carries its finding in ``meta``."""

from typing import Any

from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_not_be_in_set import ExpectColumnValuesToNotBeInSet
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from preflow.config.validation import ValidationSettings
from preflow.data.quality.rows.ingest import PROBLEMS
from preflow.findings import FINDINGS, Severity, setting_of

_GRADES = {"stop": FailureSeverity.CRITICAL, "set_aside": FailureSeverity.WARNING, "warn": FailureSeverity.INFO}


class ExpectNoRowWithProblem(ExpectColumnValuesToNotBeInSet):
    """No row has a form that cannot be used."""


class ExpectNoRowWhere(ExpectColumnValuesToBeInSet):
    """A yes or no that must be no in every row."""


class ExpectMeasureBelow(ExpectColumnValuesToBeBetween):
    """A measure that must stay below a threshold; where it is absent there is nothing to measure."""


class ExpectMeasureAtLeast(ExpectColumnValuesToBeBetween):
    """A measure that must reach a threshold."""


def no_problem(finding: str, settings: ValidationSettings) -> Expectation:
    """No row whose form has this finding."""
    return ExpectNoRowWithProblem(column="problem", value_set=[PROBLEMS.index(finding)], **_common(finding, settings))


def never(finding: str, settings: ValidationSettings) -> Expectation:
    """The column named as the finding is false in every row."""
    return ExpectNoRowWhere(column=finding, value_set=[False], **_common(finding, settings))


def below(finding: str, limit: float, settings: ValidationSettings, *, reached: bool = True) -> Expectation:
    """The column named as the finding stays below ``limit``; reaching it is too much, unless ``reached`` is false."""
    return ExpectMeasureBelow(column=finding, max_value=limit, strict_max=reached, **_common(finding, settings))


def at_least(finding: str, limit: float, settings: ValidationSettings, kind: str = "") -> Expectation:
    """The column named as the finding is ``limit`` or more; ``kind`` of rows where its setting's name depends on it."""
    return ExpectMeasureAtLeast(column=finding, min_value=limit, **_common(finding, settings, kind))


def _common(finding: str, settings: ValidationSettings, kind: str = "") -> dict[str, Any]:
    severity: Severity = settings.severity_of(finding)
    return {
        "severity": _GRADES.get(severity, FailureSeverity.INFO),
        "description": f"not so: {FINDINGS[finding].what}",
        "meta": {"finding": finding, "severity": severity, "setting": setting_of(finding, kind)},
    }
