"""Cues of form that the reward follows in place of the preference."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import PairMeasures, RunMeasurements
from preflow.diagnosis.remedies import remedy
from preflow.maths.intervals import Interval, wilson

Bools = NDArray[np.bool_]
#: z of a two-sided 95 % interval.
_Z_INTERVAL = 1.959964
#: Pairs with the cue, and pairs against it, without which nothing is said.
_FEWEST = 30
_FOLLOWS = 0.4
#: Accuracy against the cue that counts as no better than chance.
_CHANCE = 0.55


def cues(run: RunMeasurements) -> Iterator[RunFinding]:
    """The reward follows length, or another cue of form, where the label does not."""
    if run.pairs is None or not run.has_learnt():
        return
    margins = run.pairs.margins()
    found = [_cue(run, name, differs, margins) for name, differs in _all_cues(run.pairs).items()]
    worst = max((each for each in found if each is not None), key=lambda each: each.strength, default=None)
    if worst is not None:
        yield worst


def _all_cues(pairs: PairMeasures) -> Mapping[str, NDArray[np.float64]]:
    """By cue, how much more of it chosen has than rejected, shape ``(N,)``."""
    return {"length": pairs.chosen_tokens - pairs.rejected_tokens, **pairs.cues}


def _cue(
    run: RunMeasurements, name: str, differs: NDArray[np.float64], margins: NDArray[np.float64]
) -> RunFinding | None:
    """Whether rewards follow one cue: right where it favours chosen, clearly less, and no better than chance, else."""
    has = differs != 0
    if has.sum() < _FEWEST:
        return None
    follows = rank_correlation(differs[has], margins[has])
    with_it, against = (differs > 0, differs < 0) if follows > 0 else (differs < 0, differs > 0)
    right = margins > 0
    if abs(follows) < _FOLLOWS or against.sum() < _FEWEST or not with_it.any():
        return None
    parts = [wilson(int(right[part].sum()), int(part.sum())) for part in (with_it, against)]
    apart = parts[1].high < parts[0].low
    if parts[0].low <= 0.5 or not apart or parts[1].low > 0.5 or parts[1].value > _CHANCE:
        return None
    direction = ("more" if follows > 0 else "less") + (" of it" if name == "length" else f" of {name}")
    evidence = (
        f"rank correlation of the reward margin with {name} {follows:+.2f}; reward accuracy {parts[0].value:.2f} on "
        f"{with_it.sum()} pairs whose chosen response has {direction}, {parts[1].value:.2f} [{parts[1].low:.2f}, "
        f"{parts[1].high:.2f}] on {against.sum()} others"
    )
    data = wilson(int(with_it.sum()), int(has.sum()))
    change = _against_cue(run, name, follows, int(with_it.sum()), int(against.sum()))
    if data.low > 0.5 and _balanced_low(parts, with_it, against) <= 0.5:
        evidence += f"; {name} alone predicts the label of {data.value:.0%} of the pairs"
        what = "the pairs teach nothing beyond a cue of form"
        return RunFinding("no_signal_beyond_cue", what, evidence, change, beyond(abs(follows) / _FOLLOWS))
    what = "the reward follows a cue of form: where the cue speaks against the label, it is no better than chance"
    return RunFinding("cue_exploited", what, evidence, change, beyond(abs(follows) / _FOLLOWS))


def _balanced_low(parts: list[Interval], with_it: Bools, against: Bools) -> float:
    """Lower end of the mean of both parts' accuracies: what is right beyond the cue."""
    counts = (int(with_it.sum()), int(against.sum()))
    spread = math.sqrt(sum(side.value * (1 - side.value) / n for side, n in zip(parts, counts, strict=True))) / 2
    return sum(side.value for side in parts) / 2 - _Z_INTERVAL * spread


def _against_cue(run: RunMeasurements, name: str, follows: float, with_it: int, against: int) -> str:
    """What makes the cue say less. LD-DPO weights what a response is longer by, so it helps where longer is better."""
    preferred = ("longer" if follows > 0 else "shorter") if name == "length" else ("with" if follows > 0 else "without")
    cue = preferred if name == "length" else f"{preferred} {name}"
    surplus = with_it - against
    many = f"{surplus} more for every {with_it + against}" if surplus > 0 else "more"
    words = f"pairs that balance the cue: {many} whose rejected response is the one {cue}"
    weaker = [{"dpo.ld_alpha": 0.5}, {"dpo.ld_alpha": 0.0}] if name == "length" and follows > 0 else []
    now = run.recipe.dpo.ld_alpha if run.recipe.dpo is not None else None
    lower = [change for change in weaker if now is None or change["dpo.ld_alpha"] < now]
    return remedy(run.recipe, *lower, words)


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's correlation; 0 where one of both does not vary."""
    ranks = [_ranks(values) for values in (first, second)]
    spread = ranks[0].std() * ranks[1].std()
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread) if spread else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks
