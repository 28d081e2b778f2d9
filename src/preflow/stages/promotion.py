"""Challenger and champion measured now, on the same held-out rows and prompts: what a promotion rests on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from preflow.data.rows import Pair, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.data.validated import load_pairs
from preflow.evaluation.generation import answer_report, held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.fingerprints.files import json_digest
from preflow.maths.paired import RowScores
from preflow.maths.spread import evenly_spaced
from preflow.models import scoring
from preflow.observer import Observer
from preflow.specs import EvaluateSpec
from preflow.stages.evaluation import add_perplexity


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on the held-out rows.

    Attributes:
        rows: Whether it prefers the chosen response, row by row.
        response_tokens: Mean length of its sampled responses; None without prompts.
        perplexity: On held-out demonstrations; None without any.
        kl: From the reference of its run, nats per response; None where that was not asked for.
    """

    rows: RowScores
    response_tokens: float | None
    perplexity: float | None
    kl: float | None


def measure(spec: EvaluateSpec, name: str, reference: str | None, observer: Observer) -> Measured:
    """Measure one model.

    Args:
        spec: The models, and the data, recipe and limits of the challenger's run.
        name: Which of them.
        reference: The model that its KL is measured from; None where that is of no interest.
        observer: Receives progress.
    """
    models, settings = ModelSet(spec), spec.recipe.evaluation
    rows = _preferences(spec, models, name, observer)
    models.keep([name] if reference is None else [reference, name])
    report: dict[str, Any] = {"models": {each: {} for each in models.names}, "warnings": []}
    add_perplexity(spec, models, report, observer)
    prompts, _ = held_out_prompts(spec, models)
    asked = evenly_spaced(prompts, settings.kl_prompts)
    answers = answer_report(models, asked, settings, spec.recipe.seed, observer)[name]
    divergence = answers.get(f"kl_{reference}")
    return Measured(
        rows=rows,
        response_tokens=answers.get("response_tokens"),
        perplexity=report["models"][name].get("perplexity"),
        kl=None if divergence is None else float(divergence["value"]),
    )


def held_out_digest(spec: EvaluateSpec) -> str:
    """The name of a held-out set: the digest of its rows' content ids, in whatever order and files they are."""
    return json_digest(sorted(row.id for row in load_pairs(spec.data, "eval")))


def _preferences(spec: EvaluateSpec, models: ModelSet, name: str, observer: Observer) -> RowScores:
    settings = spec.recipe.dpo
    rows = {row.id: row for row in load_pairs(spec.data, "eval")}
    length, overlong = (settings.max_seq_length, settings.overlong_response) if settings else (2**31, "drop")
    pairs, _ = tokenize_pairs(list(rows.values()), models.renderer, length, overlong)
    groups = [(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in pairs]
    right = []
    for done, (chosen, rejected) in enumerate(scoring.scores(models.use(name), groups, models.precision), start=1):
        right.append(float(chosen.double().mean()) > float(rejected.double().mean()))
        observer.progress(done, len(pairs), "promotion: held-out pairs")
    return RowScores(
        ids=[pair.id for pair in pairs],
        clusters=[_cluster(rows[pair.id]) for pair in pairs],
        values=np.array(right, dtype=np.float64),
    )


def _cluster(pair: Pair) -> str:
    return cluster_key(first_user_turn(pair.prompt))
