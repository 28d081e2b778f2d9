"""A key of a review, made by hand, and reviewers who answer by script."""

from collections.abc import Callable, Sequence
from typing import Any

from preflow.config.evaluation.review import ReviewSettings
from preflow.review.collecting import Given
from preflow.review.drawing import draw_questions
from preflow.review.key import A_IS_BETTER, B_IS_BETTER, BOTH_ARE_BAD, TIE, Choice, Key, Question, ReviewPair
from preflow.review.record import Compared

#: What a reviewer thinks of a question.
Opinion = Callable[[Question], Choice]


def pair(number: int, cluster: int | None = None) -> ReviewPair:
    return ReviewPair(
        prompt_id=f"p{number}",
        cluster=f"c{number if cluster is None else cluster}",
        prompt=({"role": "user", "content": f"Where is order {number}?"},),
        new=f"On its way, {number}.",
        old=f"No idea, {number}.",
    )


def make_key(count: int = 20, reviewers: Sequence[str] = ("anna", "ben"), gold: int = 1, **changes: Any) -> Key:
    settings = ReviewSettings.model_validate(changes.pop("settings", {}))
    compared, known = [pair(number) for number in range(count)], [pair(1000 + number) for number in range(gold)]
    compared = list(changes.pop("pairs", compared))
    given: dict[str, Any] = {
        "number": 1,
        "recipe": "mine",
        "run": "r" * 32,
        "prompts": "test",
        "against": "sft",
        "models": (Compared(name="dpo", run="r", digest="d"), Compared(name="sft", run="r", digest="s")),
        "reviewers": tuple(reviewers),
        "asked_for": count,
        "settings": settings,
        "confidence": 0.95,
        "bootstrap_samples": 200,
        "seed": 7,
        "pairs": tuple(compared),
        "gold": tuple(known),
        "questions": tuple(draw_questions(compared, known, reviewers, settings, 7)),
    }
    return Key(**{**given, **changes})


def option(question: Question, choice: Choice) -> str:
    """What a reviewer answers who thinks so."""
    if choice in ("new", "old"):
        return A_IS_BETTER if (choice == "new") == question.new_first else B_IS_BETTER
    return TIE if choice == "tie" else BOTH_ARE_BAD


def given(key: Key, **opinions: Opinion) -> dict[str, Given]:
    """The answers of reviewers by name; those not named answer nothing."""
    return {
        question.id: Given(option(question, opinions[question.reviewer](question)))
        for question in key.questions
        if question.reviewer in opinions
    }


def always_a(key: Key, reviewer: str) -> dict[str, Given]:
    return {question.id: Given(A_IS_BETTER) for question in key.of(reviewer)}


def by_pair(choices: Sequence[Choice]) -> Opinion:
    """The choice on each pair by its number; gold pairs are answered right."""
    return lambda question: "new" if question.kind == "gold" else choices[question.pair]


def letters(text: str) -> list[Choice]:
    """Choices by their first letters, n and o."""
    return ["new" if letter == "n" else "old" for letter in text]
