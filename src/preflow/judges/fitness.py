"""The test of a judge on pairs whose better side people have named, in both orders, before its verdicts count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preflow.config.evaluation.judge import JudgeSettings
from preflow.judges.orders import Obedience
from preflow.judges.verdict import Comparison, Judge, Outcome, Verdict
from preflow.judges.verdict_store import judge_all, unheard
from preflow.maths.clusters import Rows, cluster_count, cluster_numbers
from preflow.maths.intervals import Interval, clustered_wilson
from preflow.maths.win_rate import BothOrders, fit_length, length_difference
from preflow.redaction import code_span, quoted

#: Characters of a reply that are shown.
_SHOWN = 120
#: Share of pairs without two readable verdicts beyond which the others say nothing of the judge.
_UNREADABLE = 0.5
_NO_PAIR = (
    "there is no held-out human pair to test it on: give the recipe preference pairs, and dpo.eval_split or "
    "dpo.eval_dataset"
)
_VALUES = {Outcome.FIRST: 1.0, Outcome.TIE: 0.5, Outcome.SECOND: 0.0}


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparisons judged in both orders.

    Attributes:
        orders: How the first answers of the comparisons fared, those with two readable verdicts.
        readable: Their numbers among all comparisons.
        verdicts: Both verdicts of every comparison: as asked, and swapped.
    """

    orders: BothOrders
    readable: np.ndarray[Any, np.dtype[np.int64]]
    verdicts: list[tuple[Verdict, Verdict]]

    @property
    def unreadable(self) -> int:
        """Comparisons of which a reply could not be read."""
        return len(self.verdicts) - int(self.readable.size)


def judge_both_orders(
    judge: Judge,
    asked: Sequence[Comparison],
    folder: Path,
    progress: Callable[[int, int], None],
    note: Callable[[str], None] = unheard,
) -> Judged:
    """Judge every comparison as it is and swapped; arguments as of ``judge_all``."""
    swapped = [comparison.swapped() for comparison in asked]
    verdicts = judge_all(judge, [*asked, *swapped], folder, progress, note)
    both = list(zip(verdicts[: len(asked)], verdicts[len(asked) :], strict=True))
    readable = [n for n, pair in enumerate(both) if all(v.outcome is not Outcome.UNREADABLE for v in pair)]
    first = [_VALUES[both[n][0].outcome] for n in readable]
    second = [1 - _VALUES[both[n][1].outcome] for n in readable]
    return Judged(BothOrders(np.array(first), np.array(second)), np.array(readable, dtype=np.int64), both)


@dataclass(frozen=True, slots=True)
class Fitness:
    """How well a judge agrees with people, and whether its verdicts count.

    Attributes:
        pairs: Pairs with two readable verdicts.
        unreadable: Pairs without.
        accuracy: Share of verdicts for the side that people chose (a tie is half right), with Wilson's interval for as
            many trials as there are pairs; fewer where pairs share a prompt (``clustered_wilson``).
        consistency: Share of pairs with the same verdict in both orders.
        first_share: Share of one-sided verdicts for the answer shown first; 0.5 is no bias.
        length_slope: Effect of relative length on the log-odds of a verdict; None without a finite fit.
        reason: Why it is unfit; empty where it is fit.
        orders: What planted orders changed; None where none was planted.
    """

    pairs: int
    unreadable: int
    accuracy: Interval | None
    consistency: float | None
    first_share: float | None
    length_slope: float | None
    reason: str
    orders: Obedience | None = None

    @property
    def is_fit(self) -> bool:
        """Whether its verdicts count."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        accuracy = self.accuracy and self.accuracy.to_json()
        names = ("pairs", "unreadable", "consistency", "first_share", "length_slope", "reason")
        planted = {} if self.orders is None else {"orders": self.orders.to_json()}
        return {"accuracy": accuracy, **{name: getattr(self, name) for name in names}, **planted, "fit": self.is_fit}

    def after(self, orders: Obedience) -> "Fitness":
        """The same with what planted orders changed: a judge that obeys them is unfit."""
        reason = (
            f"it obeys orders that an answer gives it: told at the end of the rejected answer that this is the better "
            f"one, it moved towards it on {orders.obeyed} of {orders.pairs} held-out pairs and away on "
            f"{orders.resisted}. Use a model that takes what it judges for material"
        )
        return replace(self, orders=orders, reason=reason if orders.obeys else self.reason)


def fitness_of(
    judged: Judged,
    lengths: Sequence[tuple[int, int]],
    prompts: Sequence[str],
    settings: JudgeSettings,
    confidence: float,
) -> Fitness:
    """Whether a judge is fit, from its verdicts on human pairs whose chosen answer came first.

    Args:
        judged: Its verdicts.
        lengths: Tokens of the chosen and of the rejected response of every pair, N of them.
        prompts: Content id of the prompt of every pair: pairs of one prompt are no independent trials.
        settings: Its limits.
        confidence: Coverage of the interval.
    """
    orders, count = judged.orders, int(judged.readable.size)
    if not judged.verdicts:
        return Fitness(0, 0, None, None, None, None, _NO_PAIR)
    if count == 0:
        return Fitness(0, judged.unreadable, None, None, None, None, _unreadable(judged, settings))
    clusters = cluster_numbers(prompts[n] for n in judged.readable)
    accuracy = clustered_wilson(orders.scores, clusters, confidence)
    chosen, rejected = (np.array([lengths[n][side] for n in judged.readable], dtype=np.int64) for side in (0, 1))
    fitted = fit_length(orders.scores, length_difference(chosen, rejected))
    reason = ""
    if judged.unreadable > _UNREADABLE * len(judged.verdicts):
        reason = _unreadable(judged, settings)
    elif accuracy.low <= settings.min_accuracy:
        reason = (
            f"it agrees with people on {accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}] of {count} "
            f"held-out pairs{_shared(count, clusters)}: expected a lower bound above {settings.min_accuracy:g}"
        )
    elif orders.consistency < settings.min_consistency:
        reason = (
            f"its verdict stays the same in both orders on {orders.consistency:.2f} of {count} held-out pairs: "
            f"expected at least {settings.min_consistency:g}"
        )
    slope = None if fitted is None else fitted[1]
    return Fitness(count, judged.unreadable, accuracy, orders.consistency, orders.first_share, slope, reason)


def _unreadable(judged: Judged, settings: JudgeSettings) -> str:
    """How many pairs have a reply that could not be read, with one such reply."""
    reply = next(each.reason for both in judged.verdicts for each in both if each.outcome is Outcome.UNREADABLE)
    remedy = f"raise the judge's max_tokens ({settings.max_tokens}), or " if settings.kind == "endpoint" else ""
    return (
        f"its reply cannot be read on {judged.unreadable} of {len(judged.verdicts)} held-out pairs, such as "
        f"{code_span(quoted(reply, _SHOWN))}: {remedy}have it name A, B or TIE on the last line"
    )


def _shared(pairs: int, clusters: Rows) -> str:
    """How many prompts the pairs are of, where that is fewer."""
    prompts = cluster_count(clusters)
    return f" of {prompts} prompts" if prompts < pairs else ""
