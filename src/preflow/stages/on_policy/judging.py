"""A judge ranks the sampled answers to each prompt, after a test on held-out pairs that people judged."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from preflow.artifacts import write_json
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.rows import Message, from_json
from preflow.data.validated import load_pairs
from preflow.environment import store_folder
from preflow.errors import UnfitJudgeError
from preflow.judges.choose import judge_of
from preflow.judges.fitness import Fitness
from preflow.judges.report import as_text, human_pairs, judge_asked, tested
from preflow.judges.verdict import Comparison, Judge, Outcome, ScoringJudge
from preflow.judges.verdict_store import score_all
from preflow.models.loading import load_tokenizer
from preflow.observer import Observer
from preflow.on_policy.answers import ANSWERS, JUDGED, Row, load_answers
from preflow.on_policy.ranking import usable_answers
from preflow.specs import JudgeAnswersSpec
from preflow.specs.pairs import judge_of_answers, section_of_judge

#: What a terminal shows while answers are judged.
_PROGRESS = "judge: sampled answers"


def run_judging_answers(spec: JudgeAnswersSpec, out: Path, observer: Observer) -> None:
    """Test the judge, and where it is fit, let it score or compare the usable answers to each prompt.

    Writes ``judged.json`` (per prompt the answers' scores, or each comparison of two answers with its verdicts in both
    orders), ``judge.json`` (the judge and its test) and ``metrics.json``. Nothing is asked twice.

    Raises:
        UnfitJudgeError: The judge does not agree with people on held-out pairs.
        JudgeError: It cannot be used or reached. Verdicts that are there are kept.
    """
    settings = judge_of_answers(spec.recipe)
    assert settings is not None, "the stage runs where a recipe names a judge"
    judge = judge_of(settings, section_of_judge(spec.recipe))
    fitness = _test(spec, settings, judge, observer)
    if not fitness.is_fit:
        raise UnfitJudgeError(
            f"the judge {settings.model} makes no pairs: {fitness.reason}. Name another one in augment.judge, or give "
            "it other criteria"
        )
    rows = load_answers(spec.answers.file(ANSWERS))
    usable = {n: found for n, row in enumerate(rows) if isinstance(found := usable_answers(row["answers"]), list)}
    scored = isinstance(judge, ScoringJudge)
    judged = _scores(judge, rows, usable, observer) if scored else _comparisons(judge, rows, usable, observer)
    write_json(out / JUDGED, judged)
    write_json(out / "judge.json", {"judge": judge.identity, "name": _name(judge), "test": fitness.to_json()})
    unreadable = [
        each for row in judged for each in row.get("comparisons", ()) if Outcome.UNREADABLE in each["verdicts"]
    ]
    metrics = {"judge_fit": 1.0, "unreadable": float(len(unreadable)), "prompts_judged": float(len(usable))}
    if fitness.accuracy is not None:
        metrics["judge_accuracy"] = fitness.accuracy.value
    if fitness.first_share is not None:
        metrics["judge_first_share"] = fitness.first_share
    write_json(out / "metrics.json", {f"judge_answers/{name}": value for name, value in metrics.items()})


def _test(spec: JudgeAnswersSpec, settings: JudgeSettings, judge: Judge, observer: Observer) -> Fitness:
    """The test of the judge's stage, on the same pairs, so that its verdicts are found again."""
    tokenizer: Any = load_tokenizer(spec.base, spec.recipe)

    def count(answer: Sequence[Message]) -> int:
        return len(tokenizer.encode(as_text(answer), add_special_tokens=False))

    tokens = {pair.id: (count(pair.chosen), count(pair.rejected)) for pair in load_pairs(spec.data, "eval")}
    pairs = human_pairs(spec.data, tokens, settings.calibrate)
    return tested(judge, pairs, settings, spec.recipe.evaluation.confidence, store_folder() / "verdicts", observer)[0]


def _name(judge: Judge) -> str:
    """A judge as pairs name it: a model or function by its name, local weights by their digest."""
    identity = judge.identity
    return str(identity["model"]) if "model" in identity else f"{identity['kind']}:{identity['weights'][:12]}"


def _prompt(row: Row) -> str:
    return as_text(from_json(row["prompt"]))


def _scores(judge: Any, rows: list[Row], usable: dict[int, list[int]], observer: Observer) -> list[Row]:
    def progress(done: int, of: int) -> None:
        observer.progress(done, of, _PROGRESS)

    places = [(n, number) for n, numbers in usable.items() for number in numbers]
    texts = [(_prompt(rows[n]), rows[n]["answers"][number]["text"]) for n, number in places]
    values = dict(
        zip(places, score_all(judge, judge.identity, texts, store_folder() / "verdicts", progress), strict=True)
    )
    return [
        {"prompt_id": row["prompt_id"], "scores": {str(number): values[n, number] for number in usable.get(n, ())}}
        for n, row in enumerate(rows)
    ]


def _comparisons(judge: Judge, rows: list[Row], usable: dict[int, list[int]], observer: Observer) -> list[Row]:
    """Each two usable answers of a prompt, in both orders."""
    places = [(n, first, second) for n, numbers in usable.items() for first, second in combinations(numbers, 2)]
    asked = [
        Comparison(_prompt(rows[n]), *(rows[n]["answers"][number]["text"] for number in pair)) for n, *pair in places
    ]
    judged = judge_asked(judge, asked, store_folder() / "verdicts", observer, _PROGRESS)
    by_prompt: dict[int, list[Row]] = {}
    for (n, first, second), both in zip(places, judged.verdicts, strict=True):
        verdicts = [verdict.outcome for verdict in both]
        by_prompt.setdefault(n, []).append({"answers": [first, second], "verdicts": verdicts})
    return [{"prompt_id": row["prompt_id"], "comparisons": by_prompt.get(n, [])} for n, row in enumerate(rows)]
