"""From judged answers to a preference pair, or to the reason why a prompt has none; never a coin toss.

The best and the worst answer make the pair (``max_min``, Dong et al. 2024, arXiv:2405.07863). Where the judge compares
two answers at a time, an answer's score is the share of its comparisons that it wins, and the pair counts only if the
judge prefers the best over the worst in both orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

#: Why a prompt has no pair.
Reason = Literal["unfinished", "blank", "identical", "unjudged", "order", "tie", "below_margin"]
REASONS: tuple[Reason, ...] = get_args(Reason)
#: What a verdict is worth to the answer that was named first, and to one that was shown first of two.
_WORTH = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers of one prompt, by their numbers, with the verdicts in both orders (``Outcome``)."""

    first: int
    second: int
    shown: str
    swapped: str

    def scores(self) -> tuple[float, float] | None:
        """How the first answer fared in both orders, 0 to 1; None where a reply could not be read."""
        if self.shown not in _WORTH or self.swapped not in _WORTH:
            return None
        return _WORTH[self.shown], 1 - _WORTH[self.swapped]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The pair of a prompt: the numbers of its answers with their scores."""

    chosen: int
    rejected: int
    chosen_score: float
    rejected_score: float


def usable_answers(answers: Sequence[dict[str, Any]]) -> list[int] | Reason:
    """The numbers of the answers that can be compared, each text once; or why there are not two.

    Args:
        answers: Rows with ``text`` and ``finished``.
    """
    finished = [number for number, answer in enumerate(answers) if answer["finished"]]
    said = [number for number in finished if answers[number]["text"].strip()]
    distinct = list({answers[number]["text"]: number for number in reversed(said)}.values())
    if len(distinct) > 1:
        return sorted(distinct)
    return "unfinished" if len(finished) < 2 else "blank" if len(said) < 2 else "identical"


def choose_by_scores(scores: dict[int, float], min_margin: float) -> Chosen | Reason:
    """The pair of answers that were scored one by one.

    Args:
        scores: By the answers' numbers, two or more.
        min_margin: Least difference of the scores of a pair.
    """
    best, worst = _extremes(scores)
    if scores[best] == scores[worst]:
        return "tie"
    if scores[best] - scores[worst] < min_margin:
        return "below_margin"
    return Chosen(best, worst, scores[best], scores[worst])


def choose_by_comparisons(compared: Sequence[Compared], min_margin: float) -> Chosen | Reason:
    """The pair of answers that were compared two by two, each two in both orders.

    Args:
        compared: All comparisons of a prompt's answers.
        min_margin: Least difference of the shares of won comparisons of a pair.
    """
    won: dict[int, list[float]] = {}
    for one in compared:
        scores = one.scores()
        if scores is not None:
            won.setdefault(one.first, []).append(sum(scores) / 2)
            won.setdefault(one.second, []).append(1 - sum(scores) / 2)
    if not won:
        return "unjudged"
    shares = {number: sum(values) / len(values) for number, values in won.items()}
    best, worst = _extremes(shares)
    if shares[best] == shares[worst]:
        turned = any((scores := one.scores()) is not None and scores[0] != scores[1] for one in compared)
        return "order" if turned else "tie"
    verdict = _best_against_worst(compared, best, worst)
    if verdict is None:
        return "unjudged"
    if verdict != (1.0, 1.0):  # by one order, or on the way round over other answers
        return "tie" if verdict == (0.5, 0.5) else "order"
    if shares[best] - shares[worst] < min_margin:
        return "below_margin"
    return Chosen(best, worst, shares[best], shares[worst])


def _extremes(scores: dict[int, float]) -> tuple[int, int]:
    """Best and worst; of equal ones that which was sampled first."""
    best = min(scores, key=lambda number: (-scores[number], number))
    return best, min(scores, key=lambda number: (scores[number], number))


def _best_against_worst(compared: Sequence[Compared], best: int, worst: int) -> tuple[float, float] | None:
    """How the best answer fared against the worst in both orders; None where that cannot be read."""
    for one in compared:
        scores = one.scores()
        if scores is not None and (one.first, one.second) == (best, worst):
            return scores
        if scores is not None and (one.first, one.second) == (worst, best):
            return 1 - scores[0], 1 - scores[1]
    return None
