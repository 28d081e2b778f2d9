"""Seconds and bytes as people read them."""

import pytest

from preflow.units import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7800, "2 h 10 min")]
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(17, "17 B"), (1536, "1.5 KiB"), (20 * 2**30, "20.0 GiB")])
def test_a_size_is_given_in_the_largest_binary_unit_that_it_fills(count: float, text: str) -> None:
    assert size(count) == text
