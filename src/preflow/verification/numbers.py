"""An evaluation's numbers on held-out pairs, computed anew from the log-probs that it kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preflow.config import Recipe
from preflow.evaluation.preferences import PairScores, compare, preference_report
from preflow.maths.clusters import cluster_numbers


def recomputed(recipe: Recipe, pairs: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> list[str]:
    """The measures that come out otherwise from the kept rows, each with both values; empty where all agree.

    Args:
        recipe: The run's recipe: confidence, resamples, seed, beta.
        pairs: The rows of ``pairs.json``.
        evaluation: The contents of ``evaluation.json``.
    """
    if not pairs:
        return []
    clusters = cluster_numbers(row["cluster"] for row in pairs)
    reference = "sft" if "sft" in evaluation["models"] else "base"
    scores = {name: _scores(pairs, name) for name in evaluation["models"]}
    beta = recipe.dpo.beta if recipe.dpo is not None else 1.0
    wrong = []
    for name, score in scores.items():
        against = scores[reference] if name == "dpo" else None
        made = preference_report(score, against, beta, recipe.evaluation, recipe.seed, clusters)
        wrong += _differences(f"{name}: ", made, evaluation["models"][name])
    if "dpo" in scores:
        made = compare(scores["dpo"], scores[reference], recipe.evaluation, recipe.seed, clusters)
        wrong += _differences("comparison: ", made, evaluation.get("comparison", {}))
    return wrong


def _scores(pairs: Sequence[Mapping[str, Any]], model: str) -> PairScores:
    names = (f"chosen_logprob_{model}", f"rejected_logprob_{model}", "chosen_tokens", "rejected_tokens")
    return PairScores(*(np.array([row[name] for row in pairs], dtype=np.float64) for name in names))


def _differences(whose: str, made: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    return [
        f"{whose}{name} is {kept.get(name)}, but the kept rows give {value}"
        for name, value in made.items()
        if kept.get(name) != value
    ]
