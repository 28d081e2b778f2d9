"""The largest rate within the KL budget that still improves held-out margins is chosen."""

from typing import Any

import pytest

from preflow.config.training import DpoSettings
from preflow.dpo.rate_choice import FULL_RATES, LORA_RATES, TriedRate, choose_rate, tried_rates, whole_kl


def tried(rate: float, margin: float, whole: float | None, error: float = 0.01) -> TriedRate:
    return TriedRate(rate, None if whole is None else whole / 10, margin, error, 0.6, whole)


LOW = [tried(1e-5, 0.02, 0.1), tried(3e-5, 0.06, 0.5)]


@pytest.mark.parametrize(
    ("results", "rate", "part"),
    [
        (
            [tried(1e-5, 0.02, 0.1), tried(3e-5, 0.06, 0.5), tried(1e-4, 0.11, 1.6), tried(3e-4, 0.2, 6.0)],
            1e-4,
            "largest",
        ),
        ([tried(1e-5, 0.02, 0.1), tried(3e-5, 0.06, 0.5), tried(1e-4, 0.05, 1.6)], 3e-5, "still rose"),
        ([tried(1e-5, 0.02, 0.1), tried(3e-5, 0.06, 0.5), tried(1e-4, 0.0, None)], 3e-5, "still rose"),
        ([tried(1e-5, 0.002, 0.1), tried(3e-5, -0.004, 0.5)], 3e-5, "no rate moved the margins"),
        # Half of the KL is the root of a half of the rate: 1e-4 x 0.7071.
        ([tried(1e-4, 0.3, 4.0)], 7.1e-5, "every rate that was tried would exceed"),
        ([tried(1e-4, 0.0, None)], 1e-5, "training broke down at 0.0001"),
        ([tried(1e-5, -0.1, 0.1), tried(3e-5, -0.3, 0.5)], 1e-5, "every rate lowered the margins"),
        ([tried(1e-5, -0.002, 0.1), tried(3e-5, 0.004, 0.5), tried(1e-4, -0.3, 1.0)], 3e-5, "no rate moved"),
    ],
)
def test_the_choice(results: list[TriedRate], rate: float, part: str) -> None:
    found, why = choose_rate(results, 2.0)
    assert found == pytest.approx(rate)
    assert part in why


def settings(**changes: Any) -> DpoSettings:
    return DpoSettings(learning_rate="auto", **changes)


def test_the_whole_training_goes_further_by_the_rate_that_it_spends() -> None:
    """160 pairs, 8 a step: 20 steps; a cosine spends half the rate: 10 steps' worth, against 9.5 in the test."""
    short = settings(range_test_steps=10)
    assert whole_kl(0.5, short, 160) == pytest.approx(0.5 * (10 / 9.5) ** 1.5)
    assert whole_kl(0.5, settings(range_test_steps=10, lr_scheduler_type="constant"), 160) == pytest.approx(
        0.5 * (20 / 9.5) ** 1.5
    )
    assert whole_kl(0.5, settings(range_test_steps=10, max_steps=10), 160) == pytest.approx(0.5 * (5 / 9.5) ** 1.5)


def test_rates_are_tried_from_the_lowest_on() -> None:
    assert tried_rates(settings(range_test_rates=(1e-4, 1e-5)), "lora") == [1e-5, 1e-4]
    assert tried_rates(settings(), "lora") == list(LORA_RATES)
    assert tried_rates(settings(), "full") == list(FULL_RATES)


def test_a_rate_that_is_not_chosen_yet_is_no_number() -> None:
    with pytest.raises(ValueError, match="stage tune chooses it"):
        _ = settings().rate
