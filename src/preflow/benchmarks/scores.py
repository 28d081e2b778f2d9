"""Results of benchmarks compared: each model's mean with its interval, and differences paired by document."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from preflow.benchmarks.harness import DocumentResult
from preflow.maths.clusters import cluster_numbers
from preflow.maths.intervals import bootstrap_mean, share_interval
from preflow.maths.paired import PairedComparison, RowScores, compare_paired
from preflow.maths.signed_shares import difference_interval
from preflow.maths.significance import holm

#: By task, the results of a model's documents.
Results = Mapping[str, Sequence[DocumentResult]]


def row_scores(results: Sequence[DocumentResult]) -> RowScores:
    """Results as rows that two models can be compared on; a document that is there twice counts once."""
    names = [each.id for each in results]
    return RowScores(names, names, np.array([each.value for each in results], dtype=np.float64))


def compare_results(
    new: Results, old: Results, *, alpha: float, samples: int, seed: int
) -> dict[str, PairedComparison]:
    """Compare two models task by task, with intervals by which few documents rule no loss out.

    Arguments are as of ``compare_paired``.

    Raises:
        IncomparableError: They share no document of a task.
    """
    return {
        task: _compared(row_scores(new[task]), row_scores(old[task]), alpha=alpha, samples=samples, seed=seed)
        for task in new
    }


def _compared(new: RowScores, old: RowScores, **options: Any) -> PairedComparison:
    every = np.concatenate([new.values, old.values])
    largest = 1.0 if every.min() >= 0 and every.max() <= 1 else float(np.ptp(every)) or 1.0
    return compare_paired(new, old, interval=partial(difference_interval, largest=largest), **options)


def largest_loss(compared: Mapping[str, PairedComparison]) -> float:
    """The largest loss in a task that its interval allows; below 0 where every interval lies above 0."""
    return max(-each.difference.low for each in compared.values()) + 0.0  # no minus before a zero that is shown


def benchmark_report(
    results: Mapping[str, Results], confidence: float, samples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """By task: its metric, each model's mean with its interval, and what the last model gained over the one before it.

    P values are adjusted over the tasks (Holm).

    Args:
        results: By model, in order of training.
        confidence: Coverage of the intervals.
        samples: Resamples.
        seed: Of the resampling.
    """
    names = list(results)
    report = {task: _task(task, results, confidence, samples, seed) for task in results[names[-1]]}
    if len(names) > 1:
        alpha = 1 - confidence
        compared = compare_results(results[names[-1]], results[names[-2]], alpha=alpha, samples=samples, seed=seed)
        for (task, found), p in zip(compared.items(), holm([each.p for each in compared.values()]), strict=True):
            report[task]["delta"] = {**asdict(found), "adjusted_p": p, "models": names[-1:-3:-1]}
    return report


def _task(task: str, results: Mapping[str, Results], confidence: float, samples: int, seed: int) -> dict[str, Any]:
    models = {}
    for name, of_model in results.items():
        rows = row_scores(of_model[task])
        clusters = cluster_numbers(rows.ids)
        right = rows.values.astype(bool)
        whole = bool((right == rows.values).all())
        interval = (
            share_interval(right, clusters, confidence, samples, seed)
            if whole
            else bootstrap_mean(rows.values, confidence, samples, seed, clusters)
        )
        models[name] = interval.to_json()
    first = next(iter(results.values()))[task]
    return {"metric": first[0].metric, "documents": len(first), "models": models}
