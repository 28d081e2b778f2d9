"""What the answers of a review come to: win rate, agreement, and how reliable each reviewer is."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from preflow.maths.clusters import cluster_numbers
from preflow.maths.intervals import wilson
from preflow.maths.rater_agreement import RaterAgreement, cohen_kappa, rater_agreement
from preflow.maths.signed_shares import win_rate_interval
from preflow.maths.significance import paired_significance, sign_test
from preflow.review.key import A_IS_BETTER, B_IS_BETTER, OPTIONS, Choice, Key, Kind

_SCORES: dict[Choice, float] = {"new": 1.0, "old": 0.0, "tie": 0.5, "neither": 0.5}
#: A reviewer is warned of below these: a reviewer who reads the answers is above them.
_LEAST_CONSISTENT, _LEAST_GOLD = 0.5, 0.5
#: Level of the test that a reviewer chooses a place and not an answer.
_PLACE_LEVEL = 0.01


@dataclass(frozen=True, slots=True)
class Given:
    """What a reviewer answered to one question, as it was found.

    Attributes:
        answer: The text of the newest answer; None where the question was declined.
        comment: What the reviewer added.
        source: Who gave it, as MLflow knows it, or the sheet.
    """

    answer: str | None
    comment: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers of a review, checked.

    Attributes:
        choices: The order undone, by question: those that are one of the options.
        invalid: Those that are none, by question; their questions are open.
        declined: Questions that a reviewer declined.
        open: Questions without a valid answer that were not declined.
    """

    choices: dict[str, Choice]
    invalid: dict[str, str]
    declined: set[str]
    open: set[str]

    def of(self, key: Key, kind: Kind, reviewer: str) -> dict[int, Choice]:
        """One reviewer's choices on questions of one kind, by the number of the pair."""
        asked = [question for question in key.questions if question.kind == kind and question.reviewer == reviewer]
        return {question.pair: self.choices[question.id] for question in asked if question.id in self.choices}


def checked(key: Key, given: Mapping[str, Given]) -> Answered:
    """Hold answers to the options.

    Args:
        key: The review.
        given: The newest answer to each question that has one.
    """
    choices: dict[str, Choice] = {}
    invalid: dict[str, str] = {}
    declined: set[str] = set()
    for question in key.questions:
        found = given.get(question.id)
        if found is None:
            continue
        if found.answer is None:
            declined.add(question.id)
        elif found.answer in OPTIONS:
            choices[question.id] = question.choice(found.answer)
        else:
            invalid[question.id] = found.answer
    names = {question.id for question in key.questions}
    return Answered(choices, invalid, declined, names - choices.keys() - declined)


def collect(
    key: Key, given: Mapping[str, Given], verdicts: Sequence[Mapping[str, Any]] = (), *, accept_open: bool = False
) -> dict[str, Any]:
    """The report of a review: an entry of ``human_review.json``.

    Args:
        key: The review.
        given: The newest answer to each question that has one.
        verdicts: Rows of a judge's ``verdicts.json``, to hold it to people; empty where no judge was asked.
        accept_open: Whether questions without an answer will not be answered any more.
    """
    answered = checked(key, given)
    chosen = [answered.of(key, "pair", reviewer) for reviewer in key.reviewers]
    ratings = [tuple(each.get(pair) for each in chosen) for pair in range(len(key.pairs))]
    agreement = _beyond_chance([unit for unit in ratings if any(unit)], rater_agreement)
    reviewers = {name: _reviewer(key, name, answered, given) for name in key.reviewers}
    rows = [_row(key, pair, unit) for pair, unit in enumerate(ratings) if any(unit)]
    reason = _reason_against(key, answered, agreement, rows, accept_open)
    report = {
        "review": key.number,
        "prompts": key.prompts,
        "against": key.against,
        "models": [model.model_dump(mode="json") for model in key.models],
        "criteria": key.settings.criteria,
        "pairs": len(key.pairs),
        "gold_pairs": len(key.gold),
        "open": len(answered.open),
        "invalid": [{"question": name, "answer": text} for name, text in answered.invalid.items()],
        "declined": len(answered.declined),
        "choices": dict(Counter(choice for unit in ratings for choice in unit if choice is not None)),
        "agreement": {**_agreement(agreement), "minimum": key.settings.min_agreement},
        "self_consistency": _share(each["self_consistency"] for each in reviewers.values()),
        "gold_accuracy": _share(each["gold_accuracy"] for each in reviewers.values()),
        "reviewers": reviewers,
        "judge": _judged(key, ratings, verdicts),
        "warnings": [f"{name}: {each}" for name, found in reviewers.items() for each in found["warnings"]],
        "reason": reason,
        "win_rate": None,
        "p": None,
        "rows": rows,
        "comments": [
            {"question": question.id, "reviewer": question.reviewer, "comment": given[question.id].comment}
            for question in key.questions
            if question.id in given and given[question.id].comment
        ],
    }
    if key.prompts == "test" and not reason:
        report.update(_win_rate(key, rows))
    return report


def metrics_of(report: Mapping[str, Any]) -> dict[str, float]:
    """What MLflow compares runs by; a review of training prompts has none."""
    if report["prompts"] != "test":
        return {}
    agreement, judge = report["agreement"], report["judge"] or {}
    given: dict[str, float | None] = {
        "human/win_rate": report["win_rate"] and report["win_rate"]["value"],
        f"human/{agreement['measure']}": agreement["value"],
        "human/self_consistency": report["self_consistency"]["value"],
        "human/gold_accuracy": report["gold_accuracy"]["value"],
        "human/judge_agreement": judge.get("observed"),
        "human/judge_kappa": judge.get("value"),
        "human/open": report["open"],
        "human/counts": not report["reason"],
    }
    return {name: float(value) for name, value in given.items() if value is not None}


def majority(unit: Sequence[Choice | None], reviewers: int | None = None) -> tuple[Choice, float] | None:
    """What more than half say of one pair, and their share; None without such a choice.

    Args:
        unit: What those asked chose; None where one did not answer.
        reviewers: Half of how many; of those who answered where not given.
    """
    counts = Counter(choice for choice in unit if choice is not None)
    if not counts:
        return None
    choice, count = counts.most_common(1)[0]
    of = counts.total() if reviewers is None else reviewers
    return (choice, count / of) if 2 * count > of else None


def _reason_against(
    key: Key, answered: Answered, agreement: RaterAgreement, rows: Sequence[Any], accept_open: bool
) -> str:
    if answered.open and not accept_open:
        outside = f", {len(answered.invalid)} of them with an answer outside the options" if answered.invalid else ""
        return f"{len(answered.open)} of {len(key.questions)} questions are open{outside}"
    if not rows:
        return "no pair has an answer"
    if agreement.is_below(key.settings.min_agreement):
        return (
            f"reviewers agree too little: {agreement.measure} {agreement.value:.2f} on {agreement.units} pairs, "
            f"expected at least {key.settings.min_agreement:g}. They agree on {agreement.observed:.0%} of what two of "
            f"them say of one pair; where nearly all say tie or neither, {agreement.measure} is low all the same: open "
            "a review with --set evaluation.review.min_agreement=-1, and judge that share"
        )
    return ""


def _row(key: Key, pair: int, unit: Sequence[Choice | None]) -> dict[str, Any]:
    given = {name: choice for name, choice in zip(key.reviewers, unit, strict=True) if choice is not None}
    asked = key.pairs[pair]
    return {
        "prompt_id": asked.prompt_id,
        "cluster": asked.cluster,
        "score": float(np.mean([_SCORES[choice] for choice in given.values()])),
        "answers": given,
    }


def _win_rate(key: Key, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over prompts of the mean over reviewers; prompts with one first user turn are resampled together."""
    scores, clusters = np.array([row["score"] for row in rows]), cluster_numbers(row["cluster"] for row in rows)
    options = (key.confidence, key.bootstrap_samples, key.seed % 2**32)
    rate = win_rate_interval(scores, *options, clusters)
    found = paired_significance(2 * scores - 1, clusters)
    return {
        "win_rate": rate.to_json(),
        "p": found.p,
        "test": found.test,
        "better": found.better,
        "worse": found.worse,
        "equal": found.equal,
    }


def _reviewer(key: Key, name: str, answered: Answered, given: Mapping[str, Given]) -> dict[str, Any]:
    asked = key.of(name)
    pairs, repeats, gold = (answered.of(key, kind, name) for kind in ("pair", "repeat", "gold"))
    same = [pairs[pair] == choice for pair, choice in repeats.items() if pair in pairs]
    right = [_SCORES[choice] for choice in gold.values()]
    places = Counter(given[question.id].answer for question in asked if question.id in given)
    report: dict[str, Any] = {
        "questions": len(asked),
        "answered": sum(question.id in answered.choices for question in asked),
        "open": sum(question.id in answered.open for question in asked),
        "declined": sum(question.id in answered.declined for question in asked),
        "sources": sorted({given[each.id].source for each in asked if each.id in given and given[each.id].source}),
        "answers": {option: places[option] for option in OPTIONS},
        "self_consistency": {"of": len(same), "right": float(sum(same))},
        "gold_accuracy": {"of": len(right), "right": float(sum(right))},
    }
    for measure in ("self_consistency", "gold_accuracy"):
        report[measure] = _share([report[measure]])
    return {**report, "warnings": _warnings(report)}


def _warnings(report: Mapping[str, Any]) -> list[str]:
    """Why a reviewer's answers may say little."""
    first, second = report["answers"][A_IS_BETTER], report["answers"][B_IS_BETTER]
    found = []
    if sign_test(first, second) < _PLACE_LEVEL:
        found.append(f"chose A {first} times and B {second} times, though each model was A in half of the questions")
    consistency, gold = report["self_consistency"], report["gold_accuracy"]
    if consistency["of"] > 1 and consistency["value"] < _LEAST_CONSISTENT:
        found.append(f"answered {consistency['right']:g} of {consistency['of']} repeated questions as before")
    if gold["of"] > 1 and gold["value"] < _LEAST_GOLD:
        found.append(f"agreed with {gold['right']:g} of {gold['of']} held-out human pairs")
    return found


def _share(parts: Any) -> dict[str, Any]:
    """Several counts together, with Wilson's interval; no value where nothing was asked."""
    counts = list(parts)
    right, of = sum(each["right"] for each in counts), sum(each["of"] for each in counts)
    return (
        {"value": None, "of": 0, "right": 0.0} if not of else {**wilson(right, of).to_json(), "of": of, "right": right}
    )


#: The two answers named the other way round.
_RENAMED = {"new": "old", "old": "new"}


def _beyond_chance(
    units: Sequence[Sequence[str | None]], measure: Callable[[Sequence[Sequence[str | None]]], RaterAgreement]
) -> RaterAgreement:
    """Agreement where no reviewer knows which answer is whose: each pair counts under both names of its answers.

    Chance is then that of reviewers who choose either answer alike. By the models' own names, reviewers who all prefer
    one model would agree by chance alone, whatever the prompts: 12 of 12 and 11 of 12 for it give a kappa of 0.
    """
    renamed = [tuple(_RENAMED.get(each, each) if each is not None else None for each in unit) for unit in units]
    found = measure([*units, *renamed])
    return replace(found, units=found.units // 2)


def _agreement(found: RaterAgreement) -> dict[str, Any]:
    return {"measure": found.measure, "value": found.value, "observed": found.observed, "units": found.units}


def _judged(key: Key, ratings: Sequence[Sequence[Choice | None]], verdicts: Sequence[Mapping[str, Any]]) -> Any:
    """Kappa of a judge's verdicts and the majority of people, on the pairs that both saw; None without any.

    A verdict that the order turns around is a tie, as is a pair without a majority of people.
    """
    judged = {(row["first"], row["second"]): _verdict(row["verdicts"]) for row in verdicts if row["of"] == "answers"}
    both = []
    for pair, unit in zip(key.pairs, ratings, strict=True):
        verdict, people = judged.get((pair.new, pair.old)), majority(unit)
        if verdict is not None and any(unit):
            both.append((verdict, people[0] if people is not None and people[0] in ("new", "old") else "tie"))
    return _agreement(_beyond_chance(both, cohen_kappa)) if both else None


def _verdict(both: Sequence[str]) -> str | None:
    """What the verdicts in both orders come to; None where one could not be read."""
    known = {("first", "second"): "new", ("second", "first"): "old"}
    return None if "unreadable" in both else known.get((both[0], both[1]), "tie")
