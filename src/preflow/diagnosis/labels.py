"""Labels: flipped by chance, or the opposite of others."""

import math
from collections.abc import Iterator

import numpy as np

from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import PairMeasures, RunMeasurements, Vector
from preflow.diagnosis.remedies import remedy, significant
from preflow.maths.intervals import wilson

_FEWEST = 60
#: Share of flipped labels that counts, and the least of it that the surest half has to show, interval and all.
_NOISE, _AMONG_SUREST = 0.1, 0.05
#: Twice the log-likelihood ratio beyond which flipped labels explain the margins better than a weak signal. Where
#: nothing is flipped it is exceeded in one or two of a hundred sets of 120 to 400 normal margins.
_RATIO = 6.0
_STEPS = 200
_STARTS = (0.1, 0.25, 0.4)
_NAMED = 5
_CONTRADICTED = 0.05


def label_noise(run: RunMeasurements) -> Iterator[RunFinding]:
    """Margins are those of one signal with some of its signs flipped, not those of a weak signal.

    A weak signal's margins are one hump near zero, wrong where they are small; flipped labels of a clear signal make
    two, the smaller one its mirror image, and wrong at every size. Mean and spread are the same of both, so the share
    of wrong pairs among the surest hardly differs: the shapes are compared.
    """
    dpo = run.recipe.dpo
    if run.pairs is None or dpo is None or not run.has_learnt() or len(run.pairs) < _FEWEST:
        return
    margins = run.pairs.margins()
    size = np.abs(margins)
    sure = size >= np.median(size)
    wrong = margins < 0
    among = wilson(int(wrong[sure].sum()), int(sure.sum()))
    flipped, ratio = flipped_share(margins)
    if ratio <= _RATIO or flipped < _NOISE or among.low <= _AMONG_SUREST:
        return
    smoothing = min(0.4, significant(flipped))
    robust = {"dpo.loss_type": "robust", "dpo.loss_weights": None, "dpo.label_smoothing": smoothing}
    shown = robust if dpo.loss_weights else {name: robust[name] for name in robust if name != "dpo.loss_weights"}
    known = "robust" in dpo.loss_type and abs(dpo.label_smoothing - smoothing) < 0.05
    yield RunFinding(
        "label_noise",
        "labels disagree: some pairs are ordered against the label as surely as the others with it",
        f"{flipped:.0%} flipped labels explain the margins better than a weak signal (twice the log-likelihood ratio "
        f"{ratio:.1f}); {among.value:.0%} [{among.low:.0%}, {among.high:.0%}] of the surest half are against the label",
        remedy(run.recipe, *([] if known else [shown]), "new labels for pairs like the named rows"),
        beyond(flipped / _NOISE),
        _against_every_model(run.pairs),
    )


def flipped_share(margins: Vector) -> tuple[float, float]:
    """How many signs of normally distributed margins are flipped, and whether that explains them better than none.

    The mixture ``(1 - e) N(m, s) + e N(-m, s)`` is fitted by expectation maximisation (Dempster et al. 1977) from
    several starts; ``m^2 + s^2`` is the mean square in both models.

    Returns:
        The share e of the most probable fit, and twice its log-likelihood ratio against ``e = 0``.
    """
    square = float((margins**2).mean())
    if square == 0:
        return 0.0, 0.0
    mean = float(margins.mean())
    floor = 1e-3 * square
    plain = -len(margins) / 2 * (math.log(2 * math.pi * max(square - mean**2, floor)) + 1)
    fits = [_fit(margins, square, floor, share) for share in _STARTS]
    likelihood, share = max(fits)
    return share, max(0.0, 2 * (likelihood - plain))


def _fit(margins: Vector, square: float, floor: float, share: float) -> tuple[float, float]:
    """The log-likelihood and the share of the smaller part of one fit."""
    mean = float(np.abs(margins).mean())
    for _ in range(_STEPS):
        variance = max(square - mean**2, floor)
        odds = np.clip(2 * mean * margins / variance + math.log((1 - share) / share), -500, 500)
        flipped = 1 / (1 + np.exp(odds))
        mean = float((margins * (1 - 2 * flipped)).mean())
        share = min(max(float(flipped.mean()), 1e-6), 1 - 1e-6)
    variance = max(square - mean**2, floor)
    upper, lower = (-((margins - sign * mean) ** 2) / (2 * variance) for sign in (1, -1))
    mixed = np.logaddexp(upper + math.log(1 - share), lower + math.log(share)) - math.log(2 * math.pi * variance) / 2
    return float(mixed.sum()), share if mean > 0 else 1 - share


def _against_every_model(pairs: PairMeasures) -> tuple[str, ...]:
    """The pairs that every model, and the reward, order against the label, the clearest first."""
    margins = [pairs.per_token(model) for model in pairs.chosen] + [pairs.margins()]
    scaled = [margin / max(float(np.abs(margin).max()), 1e-9) for margin in margins]
    every = np.maximum.reduce(scaled)  # below zero where each is
    order = np.argsort(every, kind="stable")
    return tuple(pairs.sources[place] for place in order[:_NAMED] if every[place] < 0)


def contradictions(run: RunMeasurements) -> Iterator[RunFinding]:
    """Many rows say the opposite of others about the same answers."""
    rows, found = run.data.get("rows_in", 0), run.data.get("findings", {})
    named = {name: found[name] for name in ("contradiction", "preference_cycle") if name in found}
    count = sum(int(each["count"]) for each in named.values())
    if not rows or count <= _CONTRADICTED * rows:
        return
    places = [
        f"{file}:{row}" for each in named.values() for file, numbers in each.get("rows", {}).items() for row in numbers
    ]
    yield RunFinding(
        "contradictions",
        "rows prefer one answer here and the other there, so others of their kind are probably chance as well",
        f"{count} of {rows} rows: " + ", ".join(f"{each['count']} {name}" for name, each in named.items()),
        f"new labels for these {count} rows, which quarantine.jsonl has",
        beyond(count / rows / _CONTRADICTED),
        tuple(places[:_NAMED]),
    )
