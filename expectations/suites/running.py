"""Running a suite once over a frame of facts, part by part where it is long."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from numpy.typing import NDArray

from preflow.config.validation import ValidationSettings

_COUNTS = ("element_count", "missing_count", "unexpected_count")


@dataclass(slots=True)
class SuiteResult:
    """What a suite found.

    Attributes:
        failing: Finding to the rows concerned (values of the frame's column ``at``), without a cap.
        results: Great Expectations' results as JSON, the same for the same rows; they hold no text of any row.
    """

    failing: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


def new_suite(name: str, settings: ValidationSettings, expectations: Iterable[Expectation]) -> gx.ExpectationSuite:
    """A suite of the expectations whose finding the recipe does not switch off."""
    kept = [wanted for wanted in expectations if settings.severity_of(finding_of(wanted)) != "off"]
    return gx.ExpectationSuite(name=name, expectations=kept)


def finding_of(expectation: Expectation) -> str:
    """The finding that an expectation looks for."""
    assert expectation.meta is not None, "custom.py gives every expectation its finding"
    return str(expectation.meta["finding"])


def run_suite(frames: Iterable[pd.DataFrame], suite: gx.ExpectationSuite) -> SuiteResult:
    """Validate frames of facts, each with one pass of one suite, and add their results up.

    Args:
        frames: As ``expectations.row_facts.RowFacts.frames`` makes them; the index names a row.
        suite: Every expectation carries its finding in ``meta``.

    Raises:
        RuntimeError: Great Expectations could not evaluate an expectation: an error of the program.
    """
    if not suite.expectations:
        return SuiteResult()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    definition = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batches = definition.add_batch_definition_whole_dataframe("rows")
    form = {"result_format": "COMPLETE"}
    found: dict[str, list[NDArray[np.int64]]] = {}
    merged: list[dict[str, Any]] = []
    for frame in frames:
        batch = batches.get_batch(batch_parameters={"dataframe": frame})
        results = batch.validate(suite, result_format=form).to_json_dict()["results"]  # type: ignore[no-untyped-call]
        for place, result in enumerate(results):
            rows = _rows(result)
            if len(rows):
                found.setdefault(result["expectation_config"]["meta"]["finding"], []).append(rows)
            if len(merged) <= place:
                merged.append(_lasting(result))
            else:
                _add(merged[place], result)
    return SuiteResult({name: np.concatenate(parts) for name, parts in found.items()}, merged)


def _rows(result: dict[str, Any]) -> NDArray[np.int64]:
    if _raised(result["exception_info"]):
        raise RuntimeError(f"Great Expectations failed on {result['expectation_config']}: {result}")
    return np.array(result["result"].get("unexpected_index_list") or [], np.int64)


def _raised(info: dict[str, Any]) -> bool:
    """Whether an expectation could not be evaluated; the result has the error itself or for each of its metrics."""
    return bool(info.get("raised_exception")) or any(
        isinstance(metric, dict) and metric.get("raised_exception") for metric in info.values()
    )


def _lasting(result: dict[str, Any]) -> dict[str, Any]:
    """Great Expectations' result without times, random ids and values, so that equal rows give equal bytes."""
    config = result["expectation_config"]
    return {
        "success": result["success"],
        "expectation_config": {
            **{key: value for key, value in config.items() if key != "id"},
            "kwargs": {k: v for k, v in config["kwargs"].items() if k != "batch_id"},
        },
        "result": {key: result["result"].get(key, 0) for key in _COUNTS},
    }


def _add(total: dict[str, Any], result: dict[str, Any]) -> None:
    total["success"] = total["success"] and result["success"]
    for key in _COUNTS:
        total["result"][key] += result["result"].get(key, 0)


def as_result(name: str, outcomes: Iterable[SuiteResult], rows: dict[str, dict[str, list[int]]]) -> dict[str, Any]:
    """The results of all suites of one kind as one validation result.

    Args:
        name: Of the kind.
        outcomes: Of its suites.
        rows: Finding to the numbers of its rows, by file.
    """
    results = [result for outcome in outcomes for result in outcome.results]
    for result in results:
        counts = result["result"]
        seen = counts["element_count"] - counts["missing_count"]
        counts["unexpected_percent"] = 100 * counts["unexpected_count"] / seen if seen else 0.0
        finding = result["expectation_config"]["meta"]["finding"]
        counts["unexpected_rows"] = {} if result["success"] else rows.get(finding, {})
    passed = sum(result["success"] for result in results)
    return {
        "suite_name": name,
        "success": passed == len(results),
        "statistics": {"evaluated_expectations": len(results), "successful_expectations": passed},
        "results": results,
    }
