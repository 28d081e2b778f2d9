"""Texts that differ in form alone are similar; texts with other numbers or signs are not."""

from collections.abc import Callable

import pytest

from preflow.data.quality.sets.similarity import text_similarity

Change = Callable[[str], str]
SAME: dict[str, Change] = {
    "case": str.upper,
    "marks": lambda text: f"({text}...)",
    "order": lambda text: " ".join([*text.split()[-3:], *text.split()[:-3]]),
    "wide spaces": lambda text: text.replace(" ", " \u2003"),
    "curly marks": lambda text: text.replace("'", "\u2019"),
}
OTHER: dict[str, Change] = {
    "a number": lambda text: text.replace("12", "13"),
    "the order of numbers": lambda text: text.replace("12", "x").replace("34", "12").replace("x", "34"),
    "a sign": lambda text: text.replace("+", "/"),
}


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_texts_are_the_same_up_to_form_and_never_with_other_numbers(change: str) -> None:
    text = "What's the sum of 12 apples + 34 pears in the basket"
    changed = {**SAME, **OTHER}[change](text)
    assert (text_similarity(text, changed) >= 0.99) == (change in SAME)
