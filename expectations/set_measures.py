"""The set as a whole, as a frame of one line for its suite and as numbers for people."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expectations.row_facts import RowFacts
from preflow.data.quality.rows.row_checks import OPENINGS
from preflow.data.quality.sets.label_cues import distributions, length_bias, openings, prompt_shares, shallow_cues
from preflow.data.quality.sets.similarity import parts_of
from preflow.data.text import folded_words
from preflow.redaction import quoted

#: Below so many rows one prompt with a large share says little.
_FEW_ROWS = 20


@dataclass(slots=True)
class SetMeasures:
    """What was measured of the usable rows of one kind together.

    Attributes:
        frame: One line, one column per finding about sets.
        shown: The same for people, by finding, with intervals; and distributions.
        rows: Rows concerned, by finding, where a finding about the set has such.
    """

    frame: pd.DataFrame
    shown: dict[str, Any]
    rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def measure_set(facts: RowFacts, used: NDArray[np.bool_], train: NDArray[np.bool_]) -> SetMeasures:
    """Measure the usable rows of one kind.

    Args:
        facts: Of all rows.
        used: Rows that no finding quarantines, shape ``(N,)``.
        train: Those of them that train, shape ``(N,)``.
    """
    columns, count = facts.columns, int(used.sum())
    distinct, largest, row = prompt_shares(columns, used)
    sources = columns.sources.most_common(1) if len(columns.sources) > 1 else []
    source_share = sources[0][1] / columns.sources.total() if sources else None
    repeated = int((used & ((facts.partners >= 0) | (facts.rows["near_duplicate"] > 0))).sum())
    values: dict[str, float | None] = {
        "too_few_rows": count,
        "fewer_rows_than_recommended": int(train.sum()),
        "few_prompts": distinct / count if count else None,
        "dominant_prompt": largest / count if count >= _FEW_ROWS else None,
        "dominant_source": source_share,
        "low_diversity": repeated / count if count else None,
    }
    shown: dict[str, Any] = {
        "fewer_rows_than_recommended": {"rows to train on": int(train.sum())},
        "few_prompts": {"prompts": distinct, "rows": count},
        "dominant_prompt": {"rows": largest, "row": str(columns.source(row)) if row >= 0 else None},
        "dominant_source": {"source": quoted(sources[0][0]), "share": source_share} if sources else {},
        "low_diversity": {"rows": repeated},
    }
    rows: dict[str, NDArray[np.int64]] = {}
    if columns.kind == "preferences":
        _measure_cues(facts, used, values, shown, rows)
        _measure_scores(facts, values, shown)
    shown["distributions"] = distributions(columns, used)
    frame = pd.DataFrame({name: np.array([value], np.float64) for name, value in values.items()})
    return SetMeasures(frame, shown, rows)


def _measure_scores(facts: RowFacts, values: dict[str, float | None], shown: dict[str, Any]) -> None:
    """How often scores say the opposite of the columns, among all rows that could be read."""
    inverted, tie, agree = (int(facts.columns.get(f"scores_{name}").sum()) for name in ("inverted", "tie", "agree"))
    scored = inverted + tie + agree
    values["scores_all_inverted"] = inverted / scored if inverted > 1 else None
    shown["scores_all_inverted"] = {"inverted": inverted, "equal": tie, "in agreement": agree} if scored else {}


def _measure_cues(
    facts: RowFacts,
    used: NDArray[np.bool_],
    values: dict[str, float | None],
    shown: dict[str, Any],
    rows: dict[str, NDArray[np.int64]],
) -> None:
    columns, limit = facts.columns, facts.settings.cue_limit
    length, cues = length_bias(columns, used), shallow_cues(columns, used)
    values["length_bias"] = None if length is None else length["low"]
    values["shallow_cue"] = max((cue["low"] for cue in cues), default=None)
    found = _openings(facts, used)
    strong = [at for entry, at in found if entry["low"] >= limit]
    if strong:
        rows["one_sided_opening"] = np.unique(np.concatenate(strong))
    values["one_sided_opening"] = max((entry["low"] for entry, _ in found), default=None)
    shown["length_bias"] = length
    shown["shallow_cue"] = cues
    shown["one_sided_opening"] = [entry for entry, _ in found]


def _openings(facts: RowFacts, used: NDArray[np.bool_]) -> list[tuple[dict[str, Any], NDArray[np.int64]]]:
    """Phrases that open many answers and their rows; of phrases that share a prefix the most telling one."""
    found = []
    for length in OPENINGS:
        for entry, rows, example in openings(facts.columns, used, length):
            entry["cue"] = _first_words(facts, entry["side"], example, length)
            found.append((entry, rows))

    def says_more(other: dict[str, Any], entry: dict[str, Any]) -> bool:
        one, two = f"{other['cue']} ", f"{entry['cue']} "
        alike = one != two and (one.startswith(two) or two.startswith(one))
        return alike and (other["low"], len(one)) > (entry["low"], len(two))

    return [(entry, rows) for entry, rows in found if not any(says_more(other, entry) for other, _ in found)]


def _first_words(facts: RowFacts, side: str, row: int, count: int) -> str:
    """How an answer begins."""
    (values,) = facts.columns.values([row])
    return " ".join(folded_words(parts_of(values)[1 if side == "chosen" else 2])[:count])
