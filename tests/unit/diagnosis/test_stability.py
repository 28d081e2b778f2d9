"""A training is unstable where single steps throw it about, not where its numbers are noisy."""

from typing import Any

import numpy as np

from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.measurements import RunMeasurements
from tests.unit.diagnosis.runs import PAIRS, STEPS, log, measured_at, pairs, recipe, run


def is_unstable(measured: RunMeasurements) -> bool:
    return "unstable" in [finding.name for finding in diagnose(measured)]


def with_measured(values: list[float], error: float, **changes: Any) -> RunMeasurements:
    entries = [entry for entry in log() if "eval_reward_margin" not in entry]
    held_out = [measured_at(15 * (1 + place), value, error) for place, value in enumerate(values)]
    return run(log=[*entries, *held_out], **changes)


def test_a_margin_changes_its_sign_only_beyond_its_error() -> None:
    turning = [0.2, -0.2, 0.2, -0.2]
    assert is_unstable(with_measured(turning, 0.05))
    assert not is_unstable(with_measured(turning, 0.15))
    assert not is_unstable(with_measured(turning, 0.0))  # a single pair shows no spread
    assert not is_unstable(with_measured(turning, 0.05, measured=pairs(np.full(PAIRS, 0.1)), kl=0.05))


def test_log_normal_norms_are_healthy_and_a_tenth_of_spikes_is_not() -> None:
    rng = np.random.default_rng(0)
    noisy = (run(log=log(grad_norm=rng.lognormal(0, 1, STEPS), loss=rng.normal(0.6, 0.08, STEPS))) for _ in range(100))
    assert sum(is_unstable(measured) for measured in noisy) <= 2
    norms = np.full(STEPS, 2.0)
    norms[::9] = 40.0  # ten of ninety
    assert is_unstable(run(log=log(grad_norm=norms)))


def test_a_loss_that_begins_high_is_no_jump_and_one_that_jumps_is_named_with_its_limit() -> None:
    """IPO at a beta of 0.1 begins at (1 / 0.2)^2 = 25."""
    steps = np.arange(STEPS)
    ipo = 25 * np.exp(-steps / 10) + 0.2  # its median is 0.5, so 20 steps lie above four times that
    assert not is_unstable(run(settings=recipe(loss_type="ipo"), log=log(loss=ipo)))
    jumping = np.full(STEPS, 1.0)
    jumping[[40, 70]] = 9.0
    (found,) = diagnose(run(log=log(loss=jumping)))
    warming = np.full(STEPS, 1.0)
    warming[[1, 4]] = 9.0  # in the first tenth of the steps
    assert diagnose(run(log=log(loss=warming))) == []
    assert found.name == "unstable"
    assert "2 with a loss above 4;" in found.evidence  # four times the median of 1
    assert found.remedy == "dpo.learning_rate: 6.7e-06"  # the gradients are as ever


def test_gradients_are_clipped_where_they_are_large_and_the_rate_is_lowered_elsewhere() -> None:
    norms, losses = np.full(STEPS, 0.2), np.full(STEPS, 0.6)
    norms[60] = 4.0
    losses[60:] = 1.2
    (large,) = diagnose(run(log=log(grad_norm=norms, loss=losses)))
    assert large.remedy == "dpo.max_grad_norm: 0.2"
    (small,) = diagnose(run(log=log(grad_norm=norms / 100, loss=losses)))  # far below what is clipped
    assert small.remedy == "dpo.learning_rate: 6.7e-06"
