"""Which pairs people are asked about, in which order, with repeats and pairs whose answer is known."""

import secrets
from collections.abc import Sequence

import numpy as np

from preflow.config.evaluation.review import ReviewSettings
from preflow.data.rows import Pair, content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.maths.spread import evenly_spaced
from preflow.review.key import Kind, Question, ReviewPair


def fit_pairs(pairs: Sequence[ReviewPair], count: int) -> list[ReviewPair]:
    """Up to ``count`` of the pairs whose answers differ in more than white space, spread evenly."""
    return evenly_spaced([pair for pair in pairs if pair.new.split() != pair.old.split()], count)


def gold_pairs(held_out: Sequence[Pair], pairs: Sequence[ReviewPair], count: int) -> list[ReviewPair]:
    """Held-out human pairs, chosen in the place of the new answer, of other prompts than the pairs' where there are."""
    asked = {pair.prompt_id for pair in pairs}
    single = [row for row in held_out if len(row.chosen) == len(row.rejected) == 1]
    found = [
        ReviewPair(
            prompt_id=content_id(row.prompt),
            cluster=cluster_key(first_user_turn(row.prompt)),
            prompt=ReviewPair.turns_json(row.prompt),
            new=row.chosen[0].content,
            old=row.rejected[0].content,
        )
        for row in single
    ]
    fit = [pair for pair in found if pair.new.split() != pair.old.split()]
    others = [pair for pair in fit if pair.prompt_id not in asked]
    return evenly_spaced(others if len(others) >= count else fit, count)


def share(fraction: float, pairs: int) -> int:
    """So many of the pairs: at least one, unless none is wanted."""
    return max(1, round(fraction * pairs)) if fraction else 0


def new_seed() -> int:
    """The seed of a new review, which nothing but its key tells."""
    return secrets.randbits(63)


def draw_questions(
    pairs: Sequence[ReviewPair],
    gold: Sequence[ReviewPair],
    reviewers: Sequence[str],
    settings: ReviewSettings,
    seed: int,
) -> list[Question]:
    """Every reviewer's questions, shuffled.

    The new answer is A in half of a reviewer's pairs (one more or less where their number is odd), and of two reviewers
    the second has each pair in the other order: a habit of choosing A moves the win rate of neither.

    Args:
        pairs: What is compared.
        gold: Pairs whose better answer is known.
        reviewers: Who is asked.
        settings: The recipe's.
        seed: Decides orders and places. It is drawn for each review and stays in its key.
    """
    rng = np.random.default_rng(seed)
    questions: list[Question] = []
    order = np.zeros(len(pairs), dtype=bool)
    for place, reviewer in enumerate(reviewers):
        order = _balanced(len(pairs), rng) if place % 2 == 0 else ~order
        again = np.sort(rng.permutation(len(pairs))[: share(settings.repeats, len(pairs))])
        gold_order = _balanced(len(gold), rng)
        asked: list[tuple[Kind, int, bool]] = [
            *(("pair", pair, bool(first)) for pair, first in enumerate(order)),
            *(("repeat", int(pair), not order[pair]) for pair in again),
            *(("gold", pair, bool(first)) for pair, first in enumerate(gold_order)),
        ]
        for number in rng.permutation(len(asked)):
            kind, pair, first = asked[number]
            questions.append(
                Question(id=secrets.token_hex(8), reviewer=reviewer, kind=kind, pair=pair, new_first=first)
            )
    return questions


def _balanced(count: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Half true, half false, shuffled; which one an odd number has more of is drawn too."""
    halves = (np.arange(count) + int(rng.integers(2))) % 2 == 0
    return rng.permutation(halves)
