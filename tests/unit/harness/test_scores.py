"""Two models compared document by document: p values that are derived by hand."""

import math

import pytest

from preflow.benchmarks.harness import DocumentResult
from preflow.benchmarks.scores import benchmark_report, compare_results, largest_loss
from preflow.config.evaluation.promotion import Guards
from preflow.maths.intervals import wilson
from preflow.maths.significance import MCNEMAR
from preflow.promotion.verdict import guards_of


def results(values: list[float]) -> list[DocumentResult]:
    return [DocumentResult(str(place), "acc", value) for place, value in enumerate(values)]


def pair(better: int, worse: int, equal: int = 4) -> tuple[list[DocumentResult], list[DocumentResult]]:
    new = [1.0] * better + [0.0] * worse + [1.0] * equal
    old = [0.0] * better + [1.0] * worse + [1.0] * equal
    return results(new), results(old)


@pytest.mark.parametrize(
    ("better", "worse", "p"), [(9, 1, 22 / 1024), (8, 2, 112 / 1024), (6, 0, 2 / 64), (5, 0, 2 / 32)]
)
def test_right_and_wrong_documents_are_compared_by_mcnemars_exact_test(better: int, worse: int, p: float) -> None:
    """2 (1 + 10) / 2^10, 2 (1 + 10 + 45) / 2^10, 2 / 2^6, 2 / 2^5: 0.0215, 0.1094, 0.03125, 0.0625."""
    new, old = pair(better, worse)
    found = compare_results({"t": new}, {"t": old}, alpha=0.05, samples=200, seed=0)["t"]
    assert (found.test, found.better, found.worse) == (MCNEMAR, better, worse)
    assert found.p == pytest.approx(p)


def test_the_report_has_exact_shares_and_p_values_that_pay_for_the_number_of_tasks() -> None:
    """Of ten documents seven are right; p = 0.03125 is doubled by Holm, 0.0625 stays above it."""
    first, second = pair(6, 0), pair(5, 0)
    given = {
        "base": {"a": results([1.0] * 3 + [0.0] * 7), "b": second[1]},
        "sft": {"a": first[1], "b": second[1]},
        "dpo": {"a": first[0], "b": second[0]},
    }
    report = benchmark_report(given, 0.95, 200, 0)
    assert report["a"]["models"]["base"]["value"] == pytest.approx(0.3)
    assert report["a"]["documents"] == 10
    assert report["a"]["delta"]["models"] == ["dpo", "sft"]
    assert report["a"]["delta"]["adjusted_p"] == pytest.approx(0.0625)
    assert report["b"]["delta"]["adjusted_p"] == pytest.approx(0.0625)
    assert "delta" not in benchmark_report({"sft": given["sft"]}, 0.95, 200, 0)["a"]


def test_values_between_right_and_wrong_have_a_bootstrap_interval() -> None:
    found = benchmark_report({"sft": {"t": results([0.25, 0.75] * 20)}}, 0.95, 200, 0)["t"]["models"]["sft"]
    assert found["value"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"]


def test_a_champion_is_replaced_only_where_a_loss_beyond_the_margin_is_ruled_out() -> None:
    """Of n documents that both answer alike, a share of z^2 / (n + z^2) may be lost (Wilson's, of 0 in n).

    One lost each way of 300: u and l are Wilson's of 1 in 300, and the loss lies above the root of the squares of
    u - 1 / 300 and 1 / 300 - l, as shares of one multinomial repel each other.
    """
    same, _ = pair(0, 0, 300)
    alike = compare_results({"t": same}, {"t": same}, alpha=0.05, samples=500, seed=0)
    new, old = pair(1, 1, 298)
    close = compare_results({"t": new, "u": same}, {"t": old, "u": same}, alpha=0.05, samples=500, seed=0)
    few = compare_results({"t": same[:24]}, {"t": same[:24]}, alpha=0.05, samples=500, seed=0)
    assert largest_loss(alike) == pytest.approx(1.96**2 / (300 + 1.96**2), abs=1e-5)
    assert largest_loss(few) == pytest.approx(1.96**2 / (24 + 1.96**2), abs=1e-4)
    one = wilson(1, 300)
    assert largest_loss(close) == pytest.approx(math.hypot(one.high - one.value, one.value - one.low), rel=0.01)
    assert largest_loss(close) > math.hypot(one.high - one.value, one.value - one.low)

    def holds(loss: float) -> bool:
        (guard,) = guards_of(Guards(), {"benchmark_margin": loss})
        return guard.holds

    assert holds(largest_loss(alike))
    assert holds(largest_loss(close))
    assert not holds(largest_loss(few)), "24 documents rule no loss out"
    assert not holds(0.02), "the lower bound must lie above minus the margin"
