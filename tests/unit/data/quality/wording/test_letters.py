"""The similarity of texts letter by letter: exact for short ones, never too high for long ones."""

import random

import pytest
from rapidfuzz import fuzz

from preflow.data.quality.wording.letters import ratio


def words(count: int) -> list[str]:
    rng = random.Random(count)
    return ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 50, 1200])
def test_up_to_8192_characters_it_is_the_librarys_own(count: int) -> None:
    text = words(count)
    other = [*text[: count // 2], "changed", *text[count // 2 + 3 :]]
    assert len(" ".join(text)) <= 8192
    assert ratio(" ".join(text), " ".join(other)) == fuzz.ratio(" ".join(text), " ".join(other))


def test_longer_texts_of_one_beginning_and_one_end_are_compared_exactly() -> None:
    text = " ".join(words(4000))
    assert ratio(text, text) == 100
    assert ratio(text, text[:9000] + text[9100:]) == pytest.approx(fuzz.ratio(text, text[:9000] + text[9100:]))


def test_of_longer_texts_it_is_at_most_the_true_similarity_and_near_it() -> None:
    text = words(4000)
    other = [word for number, word in enumerate(text) if number % 40]  # one word in forty is gone
    left, right = " ".join(text), " ".join(other)
    assert fuzz.ratio(left, right) - 2 < ratio(left, right) <= fuzz.ratio(left, right)
    assert ratio(left, " ".join(words(3900))) <= fuzz.ratio(left, " ".join(words(3900)))
