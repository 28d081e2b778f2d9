"""A judge compares the finished model's kept answers with its reference's, after a test on the run's human pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preflow.artifacts import write_json
from preflow.config.judge import JudgeSettings
from preflow.data.rows import Message, content_id
from preflow.data.validated import load_pairs
from preflow.environment import store_folder
from preflow.judges.choose import judge_of
from preflow.judges.figure import draw_win_rate_by_length
from preflow.judges.fitness import Fitness, Judged, fitness_of, judge_both_orders
from preflow.judges.verdict import Comparison, Judge
from preflow.maths.clusters import cluster_numbers
from preflow.maths.intervals import bootstrap_mean
from preflow.maths.spread import evenly_spaced
from preflow.maths.win_rate import LengthControlled, length_controlled, length_difference
from preflow.observer import Observer
from preflow.specs import JudgeSpec

#: A row of ``answers/<model>.json``.
Answer = dict[str, Any]


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


def run_judging(spec: JudgeSpec, out: Path, observer: Observer) -> None:
    """Test the judge, and where it is fit, let it compare the answers in both orders.

    Writes ``judge.json`` (the judge, its test, win rates with intervals or why there are none), ``verdicts.json`` (per
    comparison: what was compared, both verdicts and their reasons), ``metrics.json`` and, with a win rate,
    ``figures/win_rate_by_length.png``.

    Raises:
        JudgeError: The judge cannot be used or reached. Verdicts that are there are kept.
    """
    settings = spec.recipe.evaluation.judge
    assert settings is not None, "the stage runs where a recipe names a judge"
    judge = judge_of(settings)
    fitness, on_people = _test(spec, settings, judge, observer)
    report: dict[str, Any] = {"judge": judge.identity, "test": fitness.to_json()}
    verdicts = [{"of": "human pairs", **row} for row in on_people]
    metrics = _test_metrics(fitness)
    names = [name for name in ("base", "sft", "dpo") if (spec.evaluation.file(f"answers/{name}.json")).is_file()]
    report["models"] = [names[-1], names[0] if len(names) < 3 else "sft"]
    if not fitness.is_fit:
        observer.note(f"judge: unfit, so there is no win rate: {fitness.reason}")
    else:
        answers = _answers(spec, *report["models"])
        judged = _judged(judge, answers.asked, observer, "judge: answers")
        verdicts += [
            {"of": "answers", "prompt_id": row["prompt_id"], **found}
            for row, found in zip(answers.new, _rows(answers.asked, judged), strict=True)
        ]
        report.update(_win_rates(spec, judged, answers, out))
        metrics.update(_win_metrics(report))
    write_json(out / "judge.json", report)
    write_json(out / "verdicts.json", verdicts)
    write_json(out / "metrics.json", metrics)


def _test(
    spec: JudgeSpec, settings: JudgeSettings, judge: Judge, observer: Observer
) -> tuple[Fitness, list[dict[str, Any]]]:
    """How well the judge agrees with people on held-out pairs, the chosen side first."""
    pairs = evenly_spaced(list(load_pairs(spec.data, "eval")), settings.calibrate)
    tokens = {row["id"]: row for row in spec.evaluation.load("pairs.json")}
    known = [(pair, tokens[pair.id]) for pair in pairs if pair.id in tokens]
    asked = [Comparison(_text(pair.prompt), _text(pair.chosen), _text(pair.rejected)) for pair, _ in known]
    judged = _judged(judge, asked, observer, "judge: human pairs")
    lengths = [(row["chosen_tokens"], row["rejected_tokens"]) for _, row in known]
    fitness = fitness_of(judged, lengths, settings, spec.recipe.evaluation.confidence)
    rows = [
        {"prompt_id": row["prompt_id"], **found} for (_, row), found in zip(known, _rows(asked, judged), strict=True)
    ]
    return fitness, rows


def _judged(judge: Judge, asked: Sequence[Comparison], observer: Observer, what: str) -> Judged:
    def progress(done: int, of: int) -> None:
        observer.progress(done, of, what)

    return judge_both_orders(judge, asked, store_folder() / "verdicts", progress)


def _answers(spec: JudgeSpec, new: str, old: str) -> Answers:
    """Sampled answers of both models, by prompt; greedy ones are samples for the summary."""
    texts = {content_id(pair.prompt): _text(pair.prompt) for pair in load_pairs(spec.data, "eval")}
    tables = [
        {row["prompt_id"]: row for row in spec.evaluation.load(f"answers/{name}.json") if row["seed"] is not None}
        for name in (new, old)
    ]
    shared = [prompt for prompt in tables[0] if prompt in tables[1]]
    rows = [[table[prompt] for prompt in shared] for table in tables]
    asked = [
        Comparison(texts.get(a["prompt_id"], a["prompt"]), a["text"], b["text"]) for a, b in zip(*rows, strict=True)
    ]
    return Answers(asked, *rows)


def _win_rates(spec: JudgeSpec, judged: Judged, answers: Answers, out: Path) -> dict[str, Any]:
    settings, seed = spec.recipe.evaluation, spec.recipe.seed
    kept = judged.readable
    found: dict[str, Any] = {"prompts": int(kept.size), "unreadable": judged.unreadable}
    if not kept.size:
        return {**found, "reason": "no reply on an answer could be read"}
    scores, lengths = judged.orders.scores, answers.lengths()[kept]
    clusters = cluster_numbers(answers.new[n]["cluster"] for n in kept)
    options = (settings.confidence, settings.bootstrap_samples, seed)
    rate = bootstrap_mean(scores, *options, clusters)
    at_length: LengthControlled = length_controlled(scores, lengths, clusters, *options)
    wins, losses = judged.orders.consistent()
    (out / "figures").mkdir(exist_ok=True)
    draw_win_rate_by_length(out / "figures" / "win_rate_by_length.png", scores, lengths)
    tokens = [sum(rows[n]["tokens"] for n in kept) for rows in (answers.new, answers.old)]
    return {
        **found,
        "win_rate": rate.to_json(),
        "win_rate_lc": at_length.interval and at_length.interval.to_json(),
        "win_rate_lc_reason": at_length.reason,
        "consistent": {"wins": wins, "losses": losses, "others": int(kept.size) - wins - losses},
        "win_rate_consistent": wins / (wins + losses) if wins + losses else None,
        "sign_test_p": judged.orders.p(),
        "consistency": judged.orders.consistency,
        "length_ratio": tokens[0] / tokens[1] if tokens[1] else None,
        "unfinished": [sum(not rows[n]["finished"] for n in kept) for rows in (answers.new, answers.old)],
    }


def _test_metrics(fitness: Fitness) -> dict[str, float]:
    given: dict[str, float | None] = {
        "judge/accuracy": None if fitness.accuracy is None else fitness.accuracy.value,
        "judge/consistency": fitness.consistency,
        "judge/first_share": fitness.first_share,
        "judge/length_slope": fitness.length_slope,
        "judge/unreadable": fitness.unreadable,
        "judge/fit": fitness.is_fit,
    }
    return {name: float(value) for name, value in given.items() if value is not None}


def _win_metrics(report: dict[str, Any]) -> dict[str, float]:
    found = {name: report.get(name) for name in ("win_rate", "win_rate_lc", "win_rate_consistent", "length_ratio")}
    return {
        f"eval/{name}": float(value["value"] if isinstance(value, dict) else value)
        for name, value in found.items()
        if value is not None
    }


def _rows(asked: Sequence[Comparison], judged: Judged) -> list[dict[str, Any]]:
    return [
        {
            "prompt": one.prompt,
            "first": one.first,
            "second": one.second,
            "verdicts": [verdict.outcome for verdict in both],
            "reasons": [verdict.reason for verdict in both],
        }
        for one, both in zip(asked, judged.verdicts, strict=True)
    ]


def _text(turns: Sequence[Message]) -> str:
    """A conversation as text: a single turn as it is, several with their roles."""
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
