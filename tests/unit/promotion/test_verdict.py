"""What measures of a challenger and of the champion mean: the acceptance numbers of promotions, derived by hand."""

import numpy as np
import pytest

from preflow.config.evaluation.promotion import Guards, PromotionSettings
from preflow.maths.paired import PairedComparison, RowScores, compare_paired
from preflow.maths.significance import spent_alpha
from preflow.promotion.verdict import Guard, Verdict, best, guards_of, judge

GOOD = {"kl": 1.0, "length_ratio": 1.0, "perplexity_ratio": 1.0}


def compared(better: int, worse: int, equal: int, level: float = 0.05) -> PairedComparison:
    """A challenger that is right where the champion is wrong, the other way round, and both right."""
    new = [1.0] * better + [0.0] * worse + [1.0] * equal
    old = [0.0] * better + [1.0] * worse + [1.0] * equal
    names = [str(place) for place in range(len(new))]
    return compare_paired(
        RowScores(names, names, np.array(new)), RowScores(names, names, np.array(old)), alpha=level, samples=200
    )


def verdict(
    counts: tuple[int, int, int], nth: int = 1, measured: dict[str, float | None] | None = None, **settings: object
) -> Verdict:
    chosen = PromotionSettings.model_validate(settings)
    level = spent_alpha(chosen.alpha, nth)
    guards = guards_of(chosen.guards, {**GOOD, **(measured or {})})
    (found,) = judge([compared(*counts, level)], [guards], chosen, nth, level)
    return found


@pytest.mark.parametrize(
    ("nth", "level", "answer"),
    [
        (1, 0.025, "promote"),
        (2, 0.05 / 6, "promote"),
        (3, 0.05 / 12, "promote"),
        (4, 0.0025, "promote"),
        (5, 0.05 / 30, "refuse"),
    ],
)
def test_fifteen_to_two_is_promoted_four_times_and_not_a_fifth(nth: int, level: float, answer: str) -> None:
    """p = 2 (1 + 17 + 136) / 2^17 = 308 / 131072 = 0.00235 of the exact sign test."""
    found = verdict((15, 2, 3), nth)
    assert spent_alpha(0.05, nth) == pytest.approx(level)
    assert found.p == pytest.approx(308 / 131072)
    assert found.answer == answer
    if answer == "refuse":
        assert "has served 4 decisions before" in found.reasons[0]


def test_twelve_to_eight_decides_nothing_and_says_how_many_prompts_would() -> None:
    """p = 0.503; the gain of 0.2 with sd sqrt(1 - 0.04) takes ((2.2414 + 0.8416) 0.98 / 0.2)^2 = 228 prompts."""
    found = verdict((12, 8, 0))
    assert found.p == pytest.approx(0.503, abs=5e-4)
    assert found.answer == "inconclusive"
    assert found.reasons[0] == "about 229 held-out prompts would show a gain of this size; there are 20"


def weighted(prompts: list[tuple[int, float]]) -> PairedComparison:
    """Prompts of so many rows each, on which the challenger's rows differ from the champion's by so much."""
    names = [f"{place}/{row}" for place, (rows, _) in enumerate(prompts) for row in range(rows)]
    differences = np.array([value for rows, value in prompts for _ in range(rows)])
    clusters = [name.partition("/")[0] for name in names]
    new, old = RowScores(names, clusters, differences), RowScores(names, clusters, np.zeros(len(names)))
    return compare_paired(new, old, alpha=0.025, samples=200)


def test_a_challenger_that_is_worse_on_most_prompts_is_not_promoted_by_one_prompt_of_many_rows() -> None:
    """Twelve prompts of one row lost, one of 20 rows won: gain (20 - 12) / 32 = 0.25, p = 2 (1 + 13) / 2^13."""
    lost = weighted([*[(1, -1.0)] * 12, (20, 1.0)])
    assert (lost.better, lost.worse, lost.difference.value) == (1, 12, 0.25)
    assert (lost.direction, lost.is_mixed) == (-1, True)
    won = weighted([*[(1, 1.0)] * 12, (20, -1.0)])
    for found in (lost, won):
        (said,) = judge([found], [[]], PromotionSettings(), 1, 0.025)
        assert said.p == pytest.approx(28 / 8192)
        assert said.answer == "inconclusive"
        assert said.reasons[0].startswith("the test counts prompts and the gain weights rows")
    agreeing = weighted([*[(1, 1.0)] * 12, (20, 0.0)])
    assert not agreeing.is_mixed
    assert judge([agreeing], [[]], PromotionSettings(), 1, 0.025)[0].answer == "promote"


@pytest.mark.parametrize(("nth", "answer"), [(1, "inconclusive"), (2, "inconclusive")])
def test_a_gain_that_a_first_decision_could_not_confirm_says_how_many_prompts_would(nth: int, answer: str) -> None:
    """10 to 2 and 8 equal: p = 2 (1 + 12 + 66) / 2^12 = 0.0386, above 0.025 and below 0.05.

    Gain 0.4, variance 0.6 - 0.16 = 0.44: ((2.2414 + 0.8416)^2 0.44 / 0.16) = 26.1 prompts at the level 0.025.
    """
    found = verdict((10, 2, 8), nth)
    assert found.answer == answer
    assert found.p == pytest.approx(158 / 4096)
    assert found.reasons[0].endswith("held-out prompts would show a gain of this size; there are 20")
    if nth == 1:
        assert found.reasons[0].startswith("about 27 ")


@pytest.mark.parametrize(
    ("counts", "nth", "needed"),
    [
        ((3, 0, 0), 1, 7),  # 2 / 2^7 = 0.0156 <= 0.025 < 2 / 2^6
        ((3, 0, 0), 2, 8),  # 2 / 2^8 = 0.0078 <= 0.0083 < 2 / 2^7
        ((3, 0, 3), 1, 14),  # half of the prompts are equal, and seven wins are needed
    ],
)
def test_few_wins_without_a_loss_say_how_many_a_sign_test_takes(
    counts: tuple[int, int, int], nth: int, needed: int
) -> None:
    """Gain 0.5 with variance 0.25 would take 9.5 prompts by the normal approximation alone."""
    found = verdict(counts, nth)
    assert found.answer == "inconclusive"
    said = f"about {needed} held-out prompts would show a gain of this size; there are {sum(counts)}"
    assert found.reasons[0] == said


def test_prompts_that_lose_more_often_than_they_win_need_no_more_of_their_kind() -> None:
    """Six prompts of one row lost, five won, one of them with 20 rows: the gain is above 0, the test is not."""
    found = weighted([*[(1, -1.0)] * 6, *[(1, 1.0)] * 4, (20, 1.0)])
    (said,) = judge([found], [[]], PromotionSettings(), 1, 0.025)
    assert found.difference.value > 0
    assert said.answer == "inconclusive"
    assert said.reasons[0] == "no gain was found that more held-out prompts would confirm"


def test_a_guard_outweighs_any_gain_and_is_named() -> None:
    found = verdict((20, 0, 0), measured={"kl": 11.0})
    assert found.answer == "refuse"
    assert found.reasons[0] == "guard kl: KL from the reference, nats per response is 11, limit 10"
    assert verdict((20, 0, 0), measured={"kl": 10.0}).answer == "promote", "the limit itself is allowed"


@pytest.mark.parametrize(("name", "value"), [("length_ratio", 1.31), ("perplexity_ratio", 1.11)])
def test_each_guard_refuses(name: str, value: float) -> None:
    found = verdict((20, 0, 0), measured={name: value})
    assert found.answer == "refuse"
    assert found.reasons[0].startswith(f"guard {name}: ")


def test_what_cannot_be_measured_breaks_no_limit_and_is_said() -> None:
    found = verdict((20, 0, 0), measured={"perplexity_ratio": None})
    assert found.answer == "promote"
    assert "guard perplexity_ratio: not measured, as the run has nothing to measure it on" in found.reasons
    assert Guard("kl", None, 1.0).holds


@pytest.mark.parametrize(("low", "answer"), [(0.46, "promote"), (0.45, "refuse"), (None, "promote")])
def test_the_win_rate_guard_is_a_floor_above_which_the_whole_interval_lies(low: float | None, answer: str) -> None:
    found = verdict((20, 0, 0), measured={"win_rate": low}, guards={"win_rate": 0.45})
    assert found.answer == answer
    if answer == "refuse":
        said = "guard win_rate: lower bound of the win rate over the champion is 0.45, limit 0.45"
        assert found.reasons[0] == said


def test_a_guard_that_the_recipe_does_not_set_is_not_spoken_of() -> None:
    assert not [reason for reason in verdict((20, 0, 0)).reasons if "win_rate" in reason]


def test_a_worse_challenger_is_refused() -> None:
    assert verdict((2, 15, 3)).reasons[0] == "the challenger is worse than the champion"
    assert verdict((2, 15, 3)).answer == "refuse"


def test_two_equal_models_decide_nothing() -> None:
    found = verdict((0, 0, 20))
    assert (found.answer, found.p) == ("inconclusive", 1.0)
    assert found.reasons[0] == "no gain was found that more held-out prompts would confirm"


def test_the_whole_interval_must_lie_above_the_margin() -> None:
    """15 to 2 of 20 is a gain of 0.65, whose interval begins near 0.35."""
    assert verdict((15, 2, 3), min_gain=0.05).answer == "promote"
    assert verdict((15, 2, 3), min_gain=0.6).answer == "inconclusive"
    assert verdict((15, 2, 3), min_gain=0.99).answer == "refuse"


def test_several_challengers_pay_for_their_number() -> None:
    """Holm: of p = 0.00235 twice the smaller is doubled, 0.0047, which the third decision (0.00417) cannot pay."""
    level = spent_alpha(0.05, 3)
    both = [compared(15, 2, 3, level), compared(12, 8, 0, level)]
    guards = [guards_of(Guards(), dict(GOOD)) for _ in both]
    found = judge(both, guards, PromotionSettings(), 3, level)
    assert found[0].p == pytest.approx(2 * 308 / 131072)
    assert found[0].answer == "refuse"
    alone = judge(both[:1], guards[:1], PromotionSettings(), 3, level)
    assert alone[0].answer == "promote"


def test_the_best_of_those_that_may_be_promoted_is_decided_on() -> None:
    both = [compared(15, 2, 3), compared(20, 0, 0)]
    yes, no = Verdict("promote", (), 0.0), Verdict("refuse", (), 0.0)
    assert best([yes, yes], both, one_reference=True) == 1
    assert best([yes, no], both, one_reference=True) == 0
    assert best([no, no], both, one_reference=True) == 1


def test_gains_over_different_references_are_not_compared() -> None:
    """One goes from 0 of 20 right to 15, the other from 8 to 20: it gains less and is the better model."""
    names = [str(place) for place in range(20)]

    def gain(new: int, old: int) -> PairedComparison:
        scores = [RowScores(names, names, np.array([1.0] * right + [0.0] * (20 - right))) for right in (new, old)]
        return compare_paired(scores[0], scores[1], samples=200)

    both, yes = [gain(15, 0), gain(20, 8)], Verdict("promote", (), 0.0)
    assert best([yes, yes], both, one_reference=False) == 1
    assert best([yes, yes], both, one_reference=True) == 0
