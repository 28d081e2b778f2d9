"""When two texts may mean the same: their numbers agree in order, and their negations in number."""

import pytest

from preflow.data.quality.wording.equivalence import may_be_alike


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("it takes 3 days", "it takes 5 days"),  # as many numbers, but others
        ("from 3 to 5", "from 5 to 3"),  # the same ones in another order
        ("it takes 3 days", "it takes days"),
        ("you can do it", "you can not do it"),
    ],
)
def test_other_numbers_or_a_negation_say_something_else(left: str, right: str) -> None:
    assert not may_be_alike(left.split(), right.split())


def test_other_words_with_the_same_numbers_may_say_the_same() -> None:
    assert may_be_alike(["it", "takes", "3", "days"], ["3", "days", "are", "needed"])
