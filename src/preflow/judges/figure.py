"""The win rate by length, as a file."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from preflow.maths.win_rate import Scores

_PARTS = 5
_COLOUR, _NEUTRAL = "#1b7f79", "#44546a"


def draw_win_rate_by_length(path: Path, scores: Scores, lengths: Scores) -> None:
    """Mean score of the prompts, in five equal parts by how much longer the new answer is.

    Args:
        path: The file.
        scores: ``BothOrders.scores``, shape ``(N,)``.
        lengths: ``length_difference``, shape ``(N,)``.
    """
    parts = [part for part in np.array_split(np.argsort(lengths, kind="stable"), _PARTS) if part.size]
    names = [f"{lengths[part].min():+.2f} to\n{lengths[part].max():+.2f}" for part in parts]
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        bars = axes.bar(names, [scores[part].mean() for part in parts], color=_COLOUR, alpha=0.85)
        axes.bar_label(bars, [f"n = {part.size}" for part in parts], fontsize=8, padding=2)
        axes.axhline(0.5, color=_NEUTRAL, linewidth=1)
        axes.set(
            title="Win rate by length of the answer",
            xlabel="(new − old) / (new + old) tokens, from shorter to longer",
            ylabel="win rate",
            ylim=(0, 1.08),
        )
        figure.savefig(path, bbox_inches="tight", dpi=120, metadata={"Software": None, "Creation Time": None})
