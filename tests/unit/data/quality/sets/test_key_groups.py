"""The first of equal rows, against a plain way to find it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preflow.data.quality.sets.key_groups import first_occurrences

MEMORY = st.sampled_from([1, 200, 1 << 20])


@given(st.lists(st.integers(0, 5), max_size=40), st.data(), MEMORY)
def test_the_first_of_equal_rows_in_parts_as_in_one(keys: list[int], data: st.DataObject, memory: int) -> None:
    among = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    found = first_occurrences(np.array(keys, np.uint64), np.array(among, bool), memory)
    for row, key in enumerate(keys):
        same = [other for other in range(row + 1) if keys[other] == key and among[other]]
        assert found[row] == (same[0] if among[row] else -1)
