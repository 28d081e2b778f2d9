"""Figures of an evaluation, as files; each has a title and labelled axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from preflow.evaluation.preferences import PairScores

_CHOSEN, _REJECTED, _NEUTRAL = "#1b7f79", "#c8553d", "#44546a"
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlelocation": "left",
    "font.size": 10,
    "savefig.dpi": 120,
}
#: Removed, so that a figure has the same bytes in every run.
_METADATA = {"Software": None, "Creation Time": None}


def draw(folder: Path, scores: dict[str, PairScores], log: list[dict[str, float]], beta: float) -> None:
    """Write the figures that the data allow into ``folder``.

    Args:
        folder: Made if needed.
        scores: Held-out log-probs by model.
        log: The DPO stage's logged steps.
        beta: Of the implicit rewards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        if "dpo" in scores:
            reference = scores.get("sft", scores["base"])
            chosen, rejected = scores["dpo"].rewards(reference, beta)
            _save(_reward_histogram(chosen, rejected), folder / "rewards.png")
            _save(_length_against_reward(scores["dpo"], chosen, rejected), folder / "length_against_reward.png")
        if scores:
            _save(_margins(scores), folder / "preference_margins.png")
        if log:
            _save(_training(log), folder / "margin_over_training.png")


def draw_range_test(folder: Path, tried: Sequence[Mapping[str, Any]], chosen: float, budget: float) -> None:
    """Write ``range_test.png``: by learning rate, the margin that was measured and the KL that is expected.

    Args:
        folder: Made if needed.
        tried: By rate: ``rate``, ``margin``, ``margin_se``, ``whole_kl``; those that broke down have no ``whole_kl``.
        chosen: The rate that was chosen.
        budget: Most KL that the whole training may reach.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = [each for each in tried if each["whole_kl"] is not None]
    rates = [each["rate"] for each in done]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.8))
        upper, lower = figure.subplots(2, 1, sharex=True)
        errors = [each["margin_se"] for each in done]
        upper.errorbar(rates, [each["margin"] for each in done], errors, color=_CHOSEN, marker="o", capsize=3)
        upper.axhline(0, color=_NEUTRAL, linewidth=1)
        upper.set(title="Range test of the learning rate", ylabel="reward margin, ± 1 SE")
        lower.plot(rates, [each["whole_kl"] for each in done], color=_REJECTED, marker="o")
        lower.axhline(budget, color=_NEUTRAL, linewidth=1, linestyle="--", label=f"budget {budget:g}")
        lower.set(xlabel="learning rate", ylabel="expected KL, nats", xscale="log")
        lower.set_yscale("symlog", linthresh=0.01)
        lower.set_ylim(0, 3 * max(budget, *(each["whole_kl"] for each in done), 0.0))
        upper.set_xlim(0.5 * min(each["rate"] for each in tried), 2 * max(each["rate"] for each in tried))
        for axes in (upper, lower):
            axes.axvline(chosen, color=_NEUTRAL, linewidth=1, linestyle=":", label=f"chosen: {chosen:g}")
        for each in tried:
            if each["whole_kl"] is None:
                upper.axvline(each["rate"], color=_REJECTED, linewidth=1, label=f"broke down: {each['rate']:g}")
        upper.legend(frameon=False)
        lower.legend(frameon=False)
        _save(figure, folder / "range_test.png")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata=_METADATA)


def _reward_histogram(chosen: Any, rejected: Any) -> Figure:
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    axes.hist([chosen, rejected], bins=24, label=["chosen", "rejected"], color=[_CHOSEN, _REJECTED], alpha=0.85)
    axes.axvline(0, color=_NEUTRAL, linewidth=1)
    axes.set(
        title="Implicit rewards of held-out responses (DPO model)",
        xlabel="reward: beta × (log-prob − reference's), nats",
        ylabel="responses",
    )
    axes.legend(frameon=False)
    return figure


def _length_against_reward(scores: PairScores, chosen: Any, rejected: Any) -> Figure:
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    axes.scatter(scores.chosen_tokens, chosen, s=12, color=_CHOSEN, label="chosen", alpha=0.7, linewidths=0)
    axes.scatter(scores.rejected_tokens, rejected, s=12, color=_REJECTED, label="rejected", alpha=0.7, linewidths=0)
    axes.set(
        title="Does length explain the reward? (held-out responses, DPO model)",
        xlabel="tokens of the response",
        ylabel="reward, nats",
    )
    axes.legend(frameon=False)
    return figure


def _margins(scores: dict[str, PairScores]) -> Figure:
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    values = [s.chosen / s.chosen_tokens - s.rejected / s.rejected_tokens for s in scores.values()]
    axes.boxplot(values, orientation="horizontal", widths=0.6, showfliers=False, medianprops={"color": _CHOSEN})
    axes.set_yticks(range(1, len(scores) + 1), list(scores))
    axes.axvline(0, color=_NEUTRAL, linewidth=1)
    axes.set(
        title="Held-out pairs: how much more probable is chosen?",
        xlabel="log-prob per token, chosen − rejected, nats (right of 0: prefers chosen)",
    )
    return figure


def _training(log: list[dict[str, float]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    steps = [entry["step"] for entry in log if "rewards/margins" in entry]
    margins = [entry["rewards/margins"] for entry in log if "rewards/margins" in entry]
    axes.plot(steps, margins, color=_CHOSEN)
    axes.axhline(0, color=_NEUTRAL, linewidth=1)
    axes.set(title="Reward margin over training", xlabel="optimizer step", ylabel="chosen − rejected reward, nats")
    return figure
