"""The harness as it is used, without the harness."""

import contextlib

import pytest
from tqdm import tqdm

from preflow.benchmarks.harness import DocumentResult, document_results, no_progress_bars
from preflow.errors import ConfigError


def test_bars_are_silent_for_as_long_as_the_harness_works(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(KeyError), no_progress_bars():
        assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
        raise KeyError
    assert capsys.readouterr().err == ""
    assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


def of_harness(**parts: dict[str, object]) -> dict[str, object]:
    """What the harness returns of one document of each part, answered under two filters."""
    samples = {
        name: [
            {"doc_hash": f"{name} 0", "filter": each, "metrics": list(metrics), **metrics}
            for each in ("none", "strict")
        ]
        for name, metrics in parts.items()
    }
    better = {name: {each: each != "perplexity" for each in metrics} for name, metrics in parts.items()}
    return {"samples": samples, "higher_is_better": better}


def test_parts_with_other_first_metrics_are_compared_by_the_one_that_they_share() -> None:
    """Of b acc is no number of a document, and of both less perplexity is better."""
    found = of_harness(
        a={"perplexity": 3.0, "acc": 1.0, "exact_match": 0.0, "acc_norm": 0.0},
        b={"acc_norm": 1.0, "acc": (0, 1), "perplexity": 2.0},
    )
    assert document_results("both", ["a", "b"], found) == [
        DocumentResult("a 0", "acc_norm", 0.0),
        DocumentResult("b 0", "acc_norm", 1.0),
    ]
    assert [each.metric for each in document_results("a", ["a"], found)] == ["acc"]


def test_parts_without_a_common_number_are_one_error() -> None:
    found = of_harness(a={"acc": 1.0}, b={"f1": (0, 1)})
    with pytest.raises(ConfigError, match=r"benchmark both cannot .* got a: acc; b: none\. Name other tasks"):
        document_results("both", ["a", "b"], found)
