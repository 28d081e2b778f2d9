"""Which rows a store has: a sorted array of keys, and a small table of those that came since it was sorted."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from preflow.stages.shards import KEY_BYTES

#: Keys of rows, each of ``KEY_BYTES`` bytes.
Keys: TypeAlias = NDArray[np.bytes_]
#: So many recent keys are sorted in.
_RECENT = 16_384


def exact(key: bytes) -> bytes:
    """A key as it was: numpy cuts zeros from the end of a single one."""
    return bytes(key).ljust(KEY_BYTES, b"\0")


class KeyIndex:
    """Numbers keys in the order in which they are added, and finds them again."""

    def __init__(self) -> None:
        self._sorted: Keys = np.empty(0, dtype=f"S{KEY_BYTES}")
        self._rows = np.empty(0, dtype=np.int64)
        self._recent: dict[bytes, int] = {}
        self.size = 0

    def add(self, keys: Keys) -> None:
        """Add keys that are not here yet."""
        if len(keys) + len(self._recent) > _RECENT:
            self._sort_in(keys)
        else:
            self._recent.update(zip(keys.tolist(), range(self.size, self.size + len(keys)), strict=True))
        self.size += len(keys)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The number of each key, -1 for those that are not here."""
        found = np.full(len(keys), -1, dtype=np.int64)
        if len(self._sorted):
            places = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
            there = self._sorted[places] == keys
            found[there] = self._rows[places[there]]
        if self._recent:
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = self._recent.get(keys[place], -1)
        return found

    def _sort_in(self, keys: Keys) -> None:
        recent = np.array(list(self._recent), dtype=self._sorted.dtype)
        everything = np.concatenate([self._sorted, recent, keys])
        numbers = [self._rows, np.array(list(self._recent.values()), np.int64)]
        rows = np.concatenate([*numbers, np.arange(self.size, self.size + len(keys))])
        order = np.argsort(everything, kind="stable")
        self._sorted, self._rows, self._recent = everything[order], rows[order], {}
