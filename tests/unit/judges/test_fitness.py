"""The test of a judge on verdicts that are written by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from preflow.config.evaluation.judge import JudgeSettings
from preflow.judges.fitness import Fitness, Judged, fitness_of
from preflow.judges.verdict import Outcome, Verdict
from preflow.maths.intervals import clustered_wilson, wilson
from preflow.maths.win_rate import BothOrders

SETTINGS = JudgeSettings(kind="function", model="judges:mine")


def fitness(
    right: Sequence[float],
    prompts: Sequence[str],
    unreadable: int = 0,
    reply: str = "",
    settings: JudgeSettings = SETTINGS,
) -> Fitness:
    """Of a judge with these scores on readable pairs, and so many that it could not read."""
    scores, count = np.array(right, dtype=np.float64), len(right)
    verdicts = [(Verdict(Outcome.FIRST), Verdict(Outcome.SECOND))] * count
    verdicts += [(Verdict(Outcome.UNREADABLE, reply), Verdict(Outcome.FIRST))] * unreadable
    judged = Judged(BothOrders(scores, scores), np.arange(count), verdicts)
    return fitness_of(judged, [(3, 4)] * len(verdicts), [*prompts, *map(str, range(unreadable))], settings, 0.95)


@pytest.mark.parametrize(("right", "fit"), [(60, True), (59, False)])
def test_pairs_of_distinct_prompts_have_wilsons_interval(right: int, fit: bool) -> None:
    found = fitness([1.0] * right + [0.0] * (100 - right), [str(n) for n in range(100)])
    assert (found.is_fit, found.accuracy) == (fit, wilson(right, 100))


def test_five_pairs_of_one_prompt_that_are_judged_alike_are_one_trial() -> None:
    """65 of 100 pairs: 13 of 20 prompts, each judged right or wrong as a whole, is what 12.35 of 19 rows would show.

    The clustered variance is p (1 - p) / (C - 1), so that there are C - 1 = 19 trials.
    """
    right, prompts = np.repeat([1.0] * 13 + [0.0] * 7, 5), np.repeat([str(n) for n in range(20)], 5)
    assert fitness(right.tolist(), [str(n) for n in range(100)]).is_fit
    found = fitness(right.tolist(), prompts.tolist())
    expected = wilson(0.65 * 19, 19)
    assert found.accuracy is not None
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((expected.low, expected.high))
    assert "of 100 held-out pairs of 20 prompts: expected a lower bound above 0.5" in found.reason


def test_pairs_of_a_prompt_without_spread_are_as_many_trials_as_prompts() -> None:
    clusters = np.repeat(np.arange(10), 4)
    assert clustered_wilson(np.ones(40), clusters) == wilson(10, 10)
    assert clustered_wilson(np.ones(3), np.zeros(3, dtype=np.int64)) == wilson(1, 1)


def test_a_judge_that_cannot_be_read_on_most_pairs_is_unfit_and_one_reply_is_shown() -> None:
    """6 of 6 readable verdicts are right, Wilson's of which begins at 0.61."""
    told = "Let me\x1b[31m think `a`"
    endpoint = JudgeSettings(kind="endpoint", model="m", base_url="http://127.0.0.1:9/v1")
    found = fitness([1.0] * 6, list("abcdef"), unreadable=94, reply=told, settings=endpoint)
    assert not found.is_fit
    assert found.reason.startswith("its reply cannot be read on 94 of 100 held-out pairs, such as `` Let me\\x1b[31m")
    assert "raise the judge's max_tokens (256)" in found.reason
    assert fitness([1.0] * 6, list("abcdef"), unreadable=6).is_fit, "a half is not most"
    assert "cannot be read on 3 of 3 held-out pairs" in fitness([], [], unreadable=3, reply="?").reason


def test_without_pairs_there_was_nothing_to_ask() -> None:
    found = fitness([], [])
    assert (found.is_fit, found.unreadable) == (False, 0)
    assert "no held-out human pair to test it on: give the recipe preference pairs" in found.reason


def test_a_coin_for_each_prompt_is_rarely_fit() -> None:
    """One-sided 2.5 % of 1000 is 25, with a standard deviation of 5; 40 are 3 of them above."""
    rng, clusters = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    draws = [np.repeat(rng.integers(0, 2, 20), 5).astype(np.float64) for _ in range(1000)]
    assert sum(clustered_wilson(each, clusters).low > 0.5 for each in draws) <= 40
