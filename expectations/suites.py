"""What both suites share: the expectations on single rows and on sets, and running a suite once over a frame."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_not_be_in_set import ExpectColumnValuesToNotBeInSet
from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from preflow.config import ValidationSettings
from preflow.data.conversion import ROW_FINDINGS
from preflow.data.rows import Source

TOO_FEW_ROWS = "too_few_rows"
DUPLICATE_ROW = "duplicate_row"
_LASTING = ("observed_value", "element_count", "missing_count", "unexpected_count", "unexpected_percent")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a suite found.

    Attributes:
        failing: Finding to the rows concerned, in the order of the frame, without a cap.
        failed_sets: Findings that concern the set as a whole.
        result: Great Expectations' result as JSON, the same for the same rows; it holds no text of any row.
    """

    failing: dict[str, list[Source]]
    failed_sets: list[str]
    result: dict[str, Any]


def new_suite(
    name: str, settings: ValidationSettings, row_findings: Iterable[str], extra: Iterable[Expectation] = ()
) -> gx.ExpectationSuite:
    """A suite of the minimum number of rows, the named row findings, no exact duplicates, and more."""
    rows = ExpectTableRowCountToBeBetween(
        min_value=settings.minimum_rows,
        severity=FailureSeverity.CRITICAL,
        description=f"row count of at least {settings.minimum_rows} (validation.minimum_rows)",
        meta={"finding": TOO_FEW_ROWS},
    )
    duplicates = ExpectColumnValuesToBeUnique(
        column="key",
        severity=FailureSeverity.WARNING,
        description="no row says exactly what another says; the first stays",
        meta={"finding": DUPLICATE_ROW},
    )
    found = [_without(finding) for finding in row_findings]
    return gx.ExpectationSuite(name=name, expectations=[rows, *found, duplicates, *extra])


def _without(finding: str) -> Expectation:
    return ExpectColumnValuesToNotBeInSet(
        column="problem",
        value_set=[finding],
        severity=FailureSeverity.WARNING,
        description=f"no row where {ROW_FINDINGS[finding]}",
        meta={"finding": finding},
    )


def run_suite(frame: pd.DataFrame, suite: gx.ExpectationSuite) -> Outcome:
    """Validate a frame of facts with one pass of one suite.

    Args:
        frame: As ``facts.Rows.frame`` makes it; ``file`` and ``row`` name a row.
        suite: Every expectation carries its finding in ``meta``.

    Raises:
        RuntimeError: Great Expectations could not evaluate an expectation: an error of the program.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("rows")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("rows")
        .get_batch(batch_parameters={"dataframe": frame})
    )
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["file", "row"]}
    results: list[dict[str, Any]] = batch.validate(suite, result_format=form).to_json_dict()["results"]  # type: ignore[no-untyped-call]
    failing: dict[str, list[Source]] = {}
    failed_sets = []
    for result in results:
        if _raised(result["exception_info"]):
            raise RuntimeError(f"Great Expectations failed on {result['expectation_config']}: {result}")
        if not result["success"]:
            finding = result["expectation_config"]["meta"]["finding"]
            if "unexpected_index_list" in result["result"]:
                failing[finding] = [Source(at["file"], at["row"]) for at in result["result"]["unexpected_index_list"]]
            else:
                failed_sets.append(finding)
    return Outcome(failing, failed_sets, _lasting(suite.name, results))


def _raised(info: dict[str, Any]) -> bool:
    """Whether an expectation could not be evaluated; the result says so itself or for each of its metrics."""
    return bool(info.get("raised_exception")) or any(
        isinstance(metric, dict) and metric.get("raised_exception") for metric in info.values()
    )


def _lasting(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Great Expectations' result without times, random ids and values, so that equal rows give equal bytes."""
    kept = [
        {
            "success": result["success"],
            "expectation_config": {
                **{key: value for key, value in result["expectation_config"].items() if key != "id"},
                "kwargs": {k: v for k, v in result["expectation_config"]["kwargs"].items() if k != "batch_id"},
            },
            "result": {
                **{key: value for key, value in result["result"].items() if key in _LASTING},
                "unexpected_rows": [
                    {"file": at["file"], "row": at["row"]} for at in result["result"].get("unexpected_index_list") or []
                ],
            },
        }
        for result in results
    ]
    passed = sum(result["success"] for result in results)
    return {
        "suite_name": name,
        "success": passed == len(kept),
        "statistics": {"evaluated_expectations": len(kept), "successful_expectations": passed},
        "results": kept,
    }
