"""A cue is exploited where accuracy against it is no better than chance, and known to be lower than with it."""

import numpy as np
import pytest

from preflow.diagnosis.cues import rank_correlation
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.finding import RunFinding
from tests.unit.diagnosis.runs import PAIRS, pairs, recipe, run
from tests.unit.diagnosis.test_diagnose import length


def with_marks(against: int, right_against: int, count: int = PAIRS, sign: float = 1.0) -> list[RunFinding]:
    """Rewards like a mark (its absence, of ``sign`` -1); so many pairs speak against it, so many of these are right."""
    marks = np.where(np.arange(count) < against, -1.0, 1.0)
    size = np.linspace(0.2, 1, count)
    margins = np.where(marks > 0, 2 + 2 * size, np.where(np.arange(count) < right_against, size, -2 * size))
    return diagnose(run(pairs(margins, cues={"an exclamation mark": sign * marks})))


def test_accuracy_that_is_not_known_to_be_at_chance_is_no_finding() -> None:
    """Of 40 pairs against the cue, 26 right are 0.65 [0.50, 0.78]; 20 right are chance."""
    assert with_marks(40, 26) == []
    assert [finding.name for finding in with_marks(40, 20)] == ["cue_exploited"]


def test_accuracies_that_may_be_equal_are_no_finding() -> None:
    """66 of 100 with the cue are 0.66 [0.56, 0.75], 20 of 40 against it 0.50 [0.35, 0.65]."""
    place = np.arange(140)
    marks = np.where(place < 40, -1.0, 1.0)
    with_it = np.where(place < 106, 3.0, -0.1)
    margins = np.where(marks > 0, with_it, np.where(place < 20, 0.1, -3.0)) * (1 + place / 1000)
    assert rank_correlation(marks, margins) > 0.4
    names = [finding.name for finding in diagnose(run(pairs(margins, cues={"an exclamation mark": marks})))]
    assert not {"cue_exploited", "no_signal_beyond_cue"} & set(names)


def test_fewer_than_thirty_pairs_against_a_cue_say_nothing() -> None:
    names = [[finding.name for finding in with_marks(count, count // 3)] for count in (29, 30)]
    assert names[0] == []
    assert names[1]


def test_pairs_are_asked_for_that_have_the_cue_where_it_is_not_preferred() -> None:
    (liked,) = with_marks(80, 40)
    (disliked,) = with_marks(80, 40, sign=-1.0)
    assert "40 more for every 200 whose rejected response is the one with an exclamation mark" in liked.remedy
    assert "whose rejected response is the one without an exclamation mark" in disliked.remedy


def test_length_has_a_setting_where_longer_is_preferred_and_it_is_not_set_yet() -> None:
    measured = length(0.8).pairs
    assert measured is not None
    remedies = [diagnose(run(measured, recipe(ld_alpha=value)))[0].remedy for value in (None, 0.5, 0.0)]
    assert remedies[:2] == ["dpo.ld_alpha: 0.5", "dpo.ld_alpha: 0"]
    assert "whose rejected response is the one longer" in remedies[2]
    tokens = measured.rejected_tokens, measured.chosen_tokens
    shorter = pairs(measured.margins(), chosen_tokens=tokens[0], rejected_tokens=tokens[1])
    assert "whose rejected response is the one shorter" in diagnose(run(shorter))[0].remedy


def test_a_reward_that_follows_length_where_the_label_does_too_but_more_is_healthy() -> None:
    """Chosen is longer in 121 of 200 pairs, and the others are ordered well all the same."""
    rng = np.random.default_rng(3)
    differs = np.where(rng.random(PAIRS) < 0.6, 1, -1) * rng.integers(5, 30, PAIRS)
    tokens = np.full(PAIRS, 50.0)
    moved = 0.1 * differs + 4 + rng.normal(0, 1, PAIRS)
    assert diagnose(run(pairs(moved, chosen_tokens=tokens + differs, rejected_tokens=tokens))) == []


def test_rank_correlation_knows_order_and_ties() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5 / 4, deviations of 4.5 / 4 and 5 / 4 squared."""
    assert rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3])) == pytest.approx(1.0)
    values = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(*values) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0.0
