"""Which rows a store has: a sorted array of keys, and a small table of those added since it was sorted."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from preflow.logprobs.shards import KEY_BYTES

#: Keys of rows, each of ``KEY_BYTES`` bytes.
Keys: TypeAlias = NDArray[np.bytes_]
#: Recent keys that are kept before they are sorted in.
_RECENT = 16_384
#: Keys that are looked up at once, which bounds the memory for intermediate values.
_BLOCK = 65_536


def padded_key(key: bytes) -> bytes:
    """A key as it was: numpy cuts zeros from the end of a single one."""
    return bytes(key).ljust(KEY_BYTES, b"\0")


class KeyIndex:
    """Numbers keys in the order in which they are added, and finds them again."""

    def __init__(self) -> None:
        self._sorted: Keys = np.empty(0, dtype=f"S{KEY_BYTES}")
        self._rows = np.empty(0, dtype=np.int64)
        self._recent: dict[bytes, int] = {}
        self.size = 0  # rows numbered

    def __len__(self) -> int:
        """How many different keys there are."""
        return len(self._sorted) + len(self._recent)

    def add(self, keys: Keys) -> None:
        """Number keys that are not here yet; of a repeated key, the first is found."""
        if len(keys) + len(self._recent) > _RECENT:
            self._sort_in(keys)
        else:
            for row, key in enumerate(keys.tolist(), self.size):
                self._recent.setdefault(key, row)
        self.size += len(keys)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The number of each key, -1 for those that are not here."""
        found = np.full(len(keys), -1, dtype=np.int64)
        if len(self._sorted):
            for start in range(0, len(keys), _BLOCK):
                self._find_sorted(keys[start : start + _BLOCK], found[start : start + _BLOCK])
        if self._recent:
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = self._recent.get(keys[place], -1)
        return found

    def _find_sorted(self, keys: Keys, found: NDArray[np.int64]) -> None:
        """Fill in the numbers of the keys that have been sorted."""
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        there = self._sorted[places] == keys
        found[there] = self._rows[places[there]]

    def _sort_in(self, keys: Keys) -> None:
        numbers: list[NDArray[np.int64]] = []
        if len(self):
            recent = np.array(list(self._recent), dtype=self._sorted.dtype)
            keys = np.concatenate([self._sorted, recent, keys])
            numbers = [self._rows, np.array(list(self._recent.values()), np.int64)]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # A store that is opened has nothing sorted yet: there the order is the numbers, and nothing is held twice.
        rows = np.concatenate([*numbers, np.arange(self.size, self.size + len(order))])[order] if numbers else order
        again = keys[1:] == keys[:-1]
        if again.any():
            first = np.append(True, ~again)
            keys, rows = keys[first], rows[first]
        self._sorted, self._rows, self._recent = keys, rows, {}
