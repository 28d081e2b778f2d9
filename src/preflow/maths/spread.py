"""A few of many, spread evenly, the same ones each time."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_Row = TypeVar("_Row")


def evenly_spaced(rows: Sequence[_Row], count: int) -> list[_Row]:
    """``count`` rows, spread evenly over all of them, the first and the last among them; all where there are fewer."""
    picks = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [rows[i] for i in np.unique(picks)]
