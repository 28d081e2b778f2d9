"""Challenger and champion measured now, on the same held-out rows and prompts: what a promotion rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preflow.artifacts import Artifact
from preflow.benchmarks.scores import Results
from preflow.config import Recipe
from preflow.data.rows import Pair, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.data.validated import load_pairs
from preflow.environment import store_folder
from preflow.errors import PromotionError
from preflow.evaluation.generation import answer_report, held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.fingerprints.files import json_digest
from preflow.judges.choose import judge_of
from preflow.judges.report import Answer, human_pairs, judge_asked, kept_answers_of, tested
from preflow.maths.paired import RowScores
from preflow.maths.spread import evenly_spaced
from preflow.models import scoring
from preflow.observer import Observer
from preflow.promotion.win_rates import PromptScores
from preflow.specs import EvaluateSpec
from preflow.stages.benchmarks import do_tasks, runner
from preflow.stages.evaluation import add_perplexity


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on the held-out rows.

    Attributes:
        rows: Whether it prefers the chosen response, row by row.
        response_tokens: Mean length of its sampled responses; None without prompts.
        perplexity: On held-out demonstrations; None without any.
        kl: From the reference of its run, nats per response; None where that was not asked for.
        answers: Its sampled responses, as an evaluation's table of answers has them.
        tokens: Tokens of the chosen and of the rejected response, by the content id of each row.
        benchmarks: What came of the documents of the recipe's benchmarks, by task; empty without any.
    """

    rows: RowScores
    response_tokens: float | None
    perplexity: float | None
    kl: float | None
    answers: Sequence[Answer] = ()
    tokens: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    benchmarks: Results = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgedAnswers:
    """A challenger's answers against the champion's, by a judge that is fit.

    Attributes:
        judge: Its identity.
        test: How it agrees with people, as ``judge.json`` has it.
        scores: How the answers fared.
        unreadable: Prompts of which a reply could not be read.
    """

    judge: dict[str, Any]
    test: dict[str, Any]
    scores: PromptScores
    unreadable: int


def measure(spec: EvaluateSpec, name: str, reference: str | None, observer: Observer) -> Measured:
    """Measure one model.

    Args:
        spec: The models, and the data, recipe and limits of the challenger's run.
        name: Which of them.
        reference: The model that its KL is measured from; None where that is of no interest.
        observer: Receives progress.
    """
    models, settings = ModelSet(spec), spec.recipe.evaluation
    rows, tokens = _preferences(spec, models, name, observer)
    models.keep([name] if reference is None else [reference, name])
    report: dict[str, Any] = {"models": {each: {} for each in models.names}, "warnings": []}
    add_perplexity(spec, models, report, observer)
    prompts, _ = held_out_prompts(spec, models)
    asked = evenly_spaced(prompts, settings.kl_prompts)
    answers = answer_report(models, asked, settings, spec.recipe.seed, observer)[name]
    asked_tasks = settings.benchmarks
    done = {} if asked_tasks is None else do_tasks(models, name, asked_tasks, runner())
    divergence = answers.get(f"kl_{reference}")
    return Measured(
        rows=rows,
        response_tokens=answers.get("response_tokens"),
        perplexity=report["models"][name].get("perplexity"),
        kl=None if divergence is None else float(divergence["value"]),
        answers=models.answered.get(name, []),
        tokens=tokens,
        benchmarks=done,
    )


def judge_answers(
    spec: EvaluateSpec, recipe: Recipe, new: Measured, old: Measured, observer: Observer
) -> JudgedAnswers:
    """Let the recipe's judge compare a challenger's answers with the champion's, after its test on held-out pairs.

    Args:
        spec: The challenger's run, whose held-out rows are used.
        recipe: The recipe, whose ``evaluation.judge`` judges.
        new: The challenger.
        old: The champion.
        observer: Receives progress.

    Raises:
        PromotionError: The judge is unfit, or there is no answer to compare.
        JudgeError: It cannot be used or reached.
    """
    settings, folder = recipe.evaluation.judge, store_folder() / "verdicts"
    assert settings is not None, "a recipe whose promotion asks a judge names one"
    judge = judge_of(settings)
    pairs = human_pairs(spec.data, new.tokens, settings.calibrate)
    fitness, _ = tested(judge, pairs, settings, recipe.evaluation.confidence, folder, observer)
    if not fitness.is_fit:
        raise PromotionError(
            f"no fit judge: {fitness.reason}. Describe another in evaluation.judge, or use promotion.primary: "
            "preference_accuracy"
        )
    answers = kept_answers_of(spec.data, new.answers, old.answers)
    judged = judge_asked(judge, answers.asked, folder, observer, "judge: challenger against champion")
    if not judged.readable.size:
        raise PromotionError(
            f"the judge gave no readable verdict on {len(answers.asked)} held-out prompts: raise evaluation.kl_prompts "
            "where that is 0, else see what the judge replies"
        )
    rows = [answers.new[place] for place in judged.readable]
    scores = PromptScores(
        ids=[row["prompt_id"] for row in rows],
        clusters=[row["cluster"] for row in rows],
        values=judged.orders.scores,
        lengths=answers.lengths()[judged.readable],
    )
    return JudgedAnswers(judge.identity, fitness.to_json(), scores, judged.unreadable)


def held_out_digest(data: Artifact) -> str:
    """The name of a held-out set: the digest of its rows' content ids, in whatever order and files they are."""
    return json_digest(sorted(row.id for row in load_pairs(data, "eval")))


def _preferences(
    spec: EvaluateSpec, models: ModelSet, name: str, observer: Observer
) -> tuple[RowScores, dict[str, tuple[int, int]]]:
    """Which held-out pairs a model gets right, and how long their responses are."""
    settings = spec.recipe.dpo
    rows = {row.id: row for row in load_pairs(spec.data, "eval")}
    length, overlong = (settings.max_seq_length, settings.overlong_response) if settings else (2**31, "drop")
    pairs, _ = tokenize_pairs(list(rows.values()), models.renderer, length, overlong)
    groups = [(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in pairs]
    right = []
    for done, (chosen, rejected) in enumerate(scoring.scores(models.use(name), groups, models.precision), start=1):
        right.append(float(chosen.double().mean()) > float(rejected.double().mean()))
        observer.progress(done, len(pairs), "promotion: held-out pairs")
    scores = RowScores(
        ids=[pair.id for pair in pairs],
        clusters=[_cluster(rows[pair.id]) for pair in pairs],
        values=np.array(right, dtype=np.float64),
    )
    return scores, {pair.id: (len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs}


def _cluster(pair: Pair) -> str:
    return cluster_key(first_user_turn(pair.prompt))
