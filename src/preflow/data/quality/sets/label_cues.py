"""What can be said of a set of rows as a whole: cues that predict the label, diversity, dominance, distributions."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflow.data.quality.rows.form_marks import CUES
from preflow.data.quality.sets.column_store import Columns
from preflow.data.quality.sets.key_groups import sorted_groups
from preflow.maths.intervals import wilson

Bools = NDArray[np.bool_]
#: A cue counts from so many pairs on, and from this share of all: rarer ones teach little.
_FEWEST = 30
_RAREST = 0.02
_OPENING_SHARE = 0.05
_BINS = 24


def length_bias(columns: Columns, used: Bools) -> dict[str, Any] | None:
    """How often the answer with more words is the chosen one; pairs of equal length do not count."""
    chosen, rejected = (columns.get("words", side)[used] for side in (1, 2))
    return _cue("the longer answer", int((chosen > rejected).sum()), int((chosen < rejected).sum()))


def shallow_cues(columns: Columns, used: Bools) -> list[dict[str, Any]]:
    """The same for marks of form that one of both answers has."""
    chosen, rejected = (columns.get("cues", side)[used] for side in (0, 1))
    found = []
    for bit, name in enumerate(CUES):
        ours, theirs = (chosen >> bit) & 1, (rejected >> bit) & 1
        entry = _cue(name, int((ours > theirs).sum()), int((ours < theirs).sum()))
        if entry is not None and entry["pairs"] >= _RAREST * used.sum():
            found.append(entry)
    return found


def openings(columns: Columns, used: Bools, length: int) -> list[tuple[dict[str, Any], NDArray[np.int64], int]]:
    """Phrases of so many words that open many answers.

    Returns:
        For each phrase how it predicts the label, the rows that have it, and one row whose answer of that side opens
        with it.
    """
    rows = np.flatnonzero(used)
    parts = [columns.get(f"opening_{length}", side)[used] for side in (0, 1)]
    least = max(_FEWEST, int(_OPENING_SHARE * len(rows)))
    common: set[np.uint64] = set()
    for side in parts:
        keys, counts = np.unique(side[side != 0], return_counts=True)
        common.update(keys[counts >= least])
    found = []
    for key in sorted(common):
        entry = _cue("", *(int((side == key).sum()) for side in parts))
        if entry is not None:
            example = rows[parts[0 if entry["side"] == "chosen" else 1] == key][0]
            found.append((entry, rows[(parts[0] == key) | (parts[1] == key)], int(example)))
    return found


def _cue(name: str, chosen: int, rejected: int) -> dict[str, Any] | None:
    """How well a cue predicts the label, whichever way; none where too few pairs have it."""
    pairs = chosen + rejected
    if pairs < _FEWEST:
        return None
    interval = wilson(max(chosen, rejected), pairs)
    side = "chosen" if chosen >= rejected else "rejected"
    return {"cue": name, "side": side, "pairs": pairs, **interval.to_json()}


def prompt_shares(columns: Columns, used: Bools) -> tuple[int, int, int]:
    """Distinct prompts, rows of the most frequent one, and one of its rows (-1 where there is no row)."""
    rows, begins = sorted_groups(columns.get("prompt"), np.flatnonzero(used))
    if not len(rows):
        return 0, 0, -1
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(rows)))
    largest = int(sizes.argmax())
    return len(starts), int(sizes[largest]), int(rows[starts[largest]])


def distributions(columns: Columns, used: Bools) -> dict[str, Any]:
    """Histograms of lengths in words by side, and of the similarity of both answers."""
    parts = ("completion",) if columns.parts("words") == 2 else ("chosen", "rejected")
    words = [columns.get("words", side)[used] for side in range(1, columns.parts("words"))]
    if not used.any():
        return {}
    # Whole words per bin; the few longest answers are counted in the last one.
    top = _BINS * max(1, math.ceil(float(np.quantile(np.concatenate(words), 0.95)) / _BINS))
    edges = np.linspace(0, top, _BINS + 1)
    found: dict[str, Any] = {"words": {"edges": [round(float(edge), 2) for edge in edges]}}
    for name, values in zip(parts, words, strict=True):
        counts = np.histogram(np.minimum(values, top), edges)[0]
        found["words"][name] = {"counts": counts.tolist(), "median": float(np.median(values))}
    if len(parts) == 2:
        edges = np.linspace(0, 1, _BINS + 1)
        values = columns.get("similarity")[used]
        found["similarity"] = {
            "edges": [round(float(edge), 3) for edge in edges],
            "pairs": {"counts": np.histogram(values, edges)[0].tolist(), "median": round(float(np.median(values)), 4)},
        }
    return found
