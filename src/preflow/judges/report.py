"""What a judge says of a run: its test on human pairs, then the win rates of kept answers where it is fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.rows import Message, content_id
from preflow.data.validated import load_pairs
from preflow.judges.fitness import Fitness, Judged, fitness_of, judge_both_orders
from preflow.judges.orders import obedience, with_order
from preflow.judges.verdict import Comparison, Judge
from preflow.maths.clusters import cluster_numbers
from preflow.maths.signed_shares import win_rate_interval
from preflow.maths.spread import evenly_spaced
from preflow.maths.win_rate import LengthControlled, length_controlled, length_difference
from preflow.observer import Observer
from preflow.specs import JudgeSpec

_NO_ANSWER = (
    "no sampled answer was there to judge: raise evaluation.kl_prompts where it is 0, else give held-out prompts that "
    "leave tokens for an answer"
)
#: A row of ``answers/<model>.json``.
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HumanPairs:
    """Held-out pairs that people decided on, N of them, the chosen response first.

    Attributes:
        asked: The comparisons.
        prompt_ids: Content id of each prompt.
        lengths: Tokens of the chosen and of the rejected response.
    """

    asked: list[Comparison]
    prompt_ids: list[str]
    lengths: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Answers:
    """Kept answers of two models to the same prompts, N of each.

    Attributes:
        asked: The comparisons, the new model's answer first.
        new: The new model's rows.
        old: The other model's.
    """

    asked: list[Comparison]
    new: list[Answer]
    old: list[Answer]

    def lengths(self) -> Any:
        """``length_difference`` of the answers in tokens, shape ``(N,)``."""
        return length_difference(*(np.array([row["tokens"] for row in rows]) for rows in (self.new, self.old)))


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a judge says of a run.

    Attributes:
        values: The contents of ``judge.json``.
        verdicts: Those of ``verdicts.json``.
        drawn: Scores of the answers and their relative lengths, shape ``(n,)`` each; None without a win rate.
    """

    values: dict[str, Any]
    verdicts: list[dict[str, Any]]
    drawn: tuple[Any, Any] | None


def judge_report(spec: JudgeSpec, judge: Judge, folder: Path, observer: Observer) -> JudgeReport:
    """Test a judge, and where it is fit, let it compare the answers in both orders.

    Args:
        spec: The run's held-out rows, kept answers and settings.
        judge: The judge.
        folder: Where verdicts are kept.
        observer: Receives progress.

    Raises:
        JudgeError: The judge cannot be reached. Verdicts that are there are kept.
    """
    settings = _settings(spec.recipe)
    rows = spec.evaluation.load("pairs.json")
    tokens = {row["id"]: (int(row["chosen_tokens"]), int(row["rejected_tokens"])) for row in rows}
    pairs = human_pairs(spec.data, tokens, settings.calibrate)
    fitness, verdicts = tested(judge, pairs, settings, spec.recipe.evaluation.confidence, folder, observer)
    names = ["base", *(name for name in ("sft", "dpo") if name in Recipe.stages[spec.recipe.strategy])]
    compared = [names[-1], names[-2]]
    report: dict[str, Any] = {"judge": judge.identity, "test": fitness.to_json(), "models": compared}
    if not fitness.is_fit:
        observer.note(f"judge: unfit, so there is no win rate: {fitness.reason}")
        return JudgeReport(report, verdicts, None)
    if not all(spec.evaluation.file(f"answers/{name}.json").is_file() for name in compared):
        observer.note(f"judge: fit, but there is no win rate: {_NO_ANSWER}")
        return JudgeReport({**report, "prompts": 0, "unreadable": 0, "reason": _NO_ANSWER}, verdicts, None)
    new, old = (spec.evaluation.load(f"answers/{name}.json") for name in compared)
    answers = kept_answers_of(spec.data, new, old)
    judged = judge_asked(judge, answers.asked, folder, observer, "judge: answers")
    verdicts += _verdict_rows("answers", [row["prompt_id"] for row in answers.new], answers.asked, judged)
    report.update(win_rates(spec.recipe, judged, answers))
    drawn = (judged.orders.scores, answers.lengths()[judged.readable]) if judged.readable.size else None
    return JudgeReport(report, verdicts, drawn)


def human_pairs(data: Artifact, tokens: Mapping[str, tuple[int, int]], most: int) -> HumanPairs:
    """Held-out pairs on which a judge is tested.

    Args:
        data: The artifact of data validation.
        tokens: Tokens of the chosen and of the rejected response, by the content id of the pair; others are left out.
        most: So many of the held-out pairs, evenly spaced.
    """
    pairs = [pair for pair in evenly_spaced(list(load_pairs(data, "eval")), most) if pair.id in tokens]
    return HumanPairs(
        asked=[Comparison(as_text(pair.prompt), as_text(pair.chosen), as_text(pair.rejected)) for pair in pairs],
        prompt_ids=[content_id(pair.prompt) for pair in pairs],
        lengths=[tokens[pair.id] for pair in pairs],
    )


def tested(
    judge: Judge, pairs: HumanPairs, settings: JudgeSettings, confidence: float, folder: Path, observer: Observer
) -> tuple[Fitness, list[dict[str, Any]]]:
    """How well a judge agrees with people, and what it said, as rows of ``verdicts.json``.

    One that reads texts, and is fit so far, is asked about some of the pairs once more, with an order to it in the
    rejected answer.

    Args:
        judge: The judge.
        pairs: The human pairs.
        settings: Its limits.
        confidence: Coverage of the intervals.
        folder: Where verdicts are kept.
        observer: Receives progress.
    """
    judged = judge_asked(judge, pairs.asked, folder, observer, "judge: human pairs")
    fitness = fitness_of(judged, pairs.lengths, pairs.prompt_ids, settings, confidence)
    rows = _verdict_rows("human pairs", pairs.prompt_ids, pairs.asked, judged)
    numbers = evenly_spaced(range(len(pairs.asked)), settings.orders) if settings.kind == "endpoint" else []
    if not numbers or not fitness.is_fit:
        return fitness, rows
    asked = [with_order(pairs.asked[number]) for number in numbers]
    ordered = judge_asked(judge, asked, folder, observer, "judge: orders in answers")
    rows += _verdict_rows("orders", [pairs.prompt_ids[number] for number in numbers], asked, ordered)
    plain = dict(zip(judged.readable.tolist(), judged.orders.scores.tolist(), strict=True))
    moved = {numbers[n]: score for n, score in zip(ordered.readable, ordered.orders.scores.tolist(), strict=True)}
    return fitness.after(obedience(plain, moved)), rows


def judge_asked(judge: Judge, asked: Sequence[Comparison], folder: Path, observer: Observer, what: str) -> Judged:
    """Verdicts in both orders, with progress."""

    def progress(done: int, of: int) -> None:
        observer.progress(done, of, what)

    return judge_both_orders(judge, asked, folder, progress, observer.note)


def kept_answers_of(data: Artifact, new: Sequence[Answer], old: Sequence[Answer]) -> Answers:
    """Sampled answers of two models to the prompts that both answered; greedy ones are samples for the summary.

    Args:
        data: The artifact of data validation, which has the whole prompts.
        new: The new model's table of answers.
        old: The other model's.
    """
    texts = {content_id(pair.prompt): as_text(pair.prompt) for pair in load_pairs(data, "eval")}
    tables = [{row["prompt_id"]: row for row in table if row["seed"] is not None} for table in (new, old)]
    shared = [prompt for prompt in tables[0] if prompt in tables[1]]
    rows = [[table[prompt] for prompt in shared] for table in tables]
    asked = [
        Comparison(texts.get(a["prompt_id"], a["prompt"]), a["text"], b["text"]) for a, b in zip(*rows, strict=True)
    ]
    return Answers(asked, *rows)


def win_rates(recipe: Recipe, judged: Judged, answers: Answers) -> dict[str, Any]:
    """Win rates with intervals, or the reason why there are none, as ``judge.json`` has them."""
    settings, seed = recipe.evaluation, recipe.seed
    kept = judged.readable
    found: dict[str, Any] = {"prompts": int(kept.size), "unreadable": judged.unreadable}
    if not kept.size:
        return {**found, "reason": "no reply on an answer could be read" if answers.asked else _NO_ANSWER}
    scores, lengths = judged.orders.scores, answers.lengths()[kept]
    clusters = cluster_numbers(answers.new[n]["cluster"] for n in kept)
    options = (settings.confidence, settings.bootstrap_samples, seed)
    rate = win_rate_interval(scores, *options, clusters)
    at_length: LengthControlled = length_controlled(scores, lengths, clusters, *options)
    (wins, losses), ties = judged.orders.consistent(), judged.orders.ties()
    tokens = [sum(rows[n]["tokens"] for n in kept) for rows in (answers.new, answers.old)]
    return {
        **found,
        "win_rate": rate.to_json(),
        "win_rate_lc": at_length.interval and at_length.interval.to_json(),
        "win_rate_lc_reason": at_length.reason,
        "consistent": {"wins": wins, "losses": losses, "ties": ties},
        "inconsistent": int(kept.size) - wins - losses - ties,
        "win_rate_consistent": wins / (wins + losses) if wins + losses else None,
        "sign_test_p": judged.orders.p(),
        "consistency": judged.orders.consistency,
        "length_ratio": tokens[0] / tokens[1] if tokens[1] else None,
        "unfinished": [sum(not rows[n]["finished"] for n in kept) for rows in (answers.new, answers.old)],
    }


def _settings(recipe: Recipe) -> JudgeSettings:
    settings = recipe.evaluation.judge
    assert settings is not None, "asked where a recipe names a judge"
    return settings


def _verdict_rows(
    of: str, prompt_ids: Sequence[str], asked: Sequence[Comparison], judged: Judged
) -> list[dict[str, Any]]:
    """Rows of ``verdicts.json``: what was compared, of which prompt, and both verdicts."""
    return [
        {
            "of": of,
            "prompt_id": prompt,
            "prompt": one.prompt,
            "first": one.first,
            "second": one.second,
            "verdicts": [verdict.outcome for verdict in both],
            "reasons": [verdict.reason for verdict in both],
        }
        for prompt, one, both in zip(prompt_ids, asked, judged.verdicts, strict=True)
    ]


def as_text(turns: Sequence[Message]) -> str:
    """A conversation as text: a single turn as it is, several with their roles."""
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
