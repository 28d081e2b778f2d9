"""How far training went, and where it was stopped."""

from dataclasses import replace

import numpy as np
import pytest

from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.finding import RunFinding
from preflow.diagnosis.measurements import RunMeasurements
from tests.unit.diagnosis.runs import PAIRS, STEPS, evaluation, log, margins, measured_at, pairs, recipe, run


def names(measured: RunMeasurements) -> list[str]:
    return [finding.name for finding in diagnose(measured)]


def stopped(kept: int, at: int, kl: float | None, measured: RunMeasurements | None = None) -> RunFinding:
    """The one finding of a healthy run whose weights of step ``kept`` were kept; ``kl`` is that at the stop."""
    measured = measured or run()
    metrics = {name: value for name, value in measured.metrics.items() if name != "dpo/eval_kl"}
    metrics |= {"dpo/kept_step": float(kept), "dpo/stopped_at_step": float(at)}
    metrics |= {} if kl is None else {"dpo/eval_kl": kl}
    (found,) = diagnose(replace(measured, metrics=metrics))
    assert found.name == "stopped_early"
    assert f"stopped at step {at}, kept step {kept}" in found.evidence
    return found


def test_a_run_put_back_to_its_start_says_why_it_was_stopped() -> None:
    start = run(pairs(np.zeros(PAIRS)), kl=0.0)
    patience = stopped(0, 200, 0.05, start)
    assert "unchanged" in patience.what
    assert patience.remedy == "dpo.learning_rate: 8.9e-05"  # 2e-5 times the root of 1 / 0.05
    far = stopped(0, 200, 2.0, start)
    assert far.remedy == "dpo.eval_pairs: 64"  # it moved, but 16 pairs cannot tell
    broken = stopped(0, 60, None, start)
    assert "no number" in broken.what
    assert broken.remedy == "dpo.learning_rate: 6.7e-06"  # a third


def test_weights_of_an_earlier_step_are_a_finding_the_stronger_the_earlier() -> None:
    early, late = stopped(20, 220, 2.0), stopped(180, 220, 2.0)
    assert early.strength > 0.5 > late.strength
    assert early.remedy == "dpo.max_steps: 20"  # it learnt until there
    assert stopped(40, 60, None).remedy == "dpo.learning_rate: 6.7e-06"


def test_weights_of_an_earlier_step_are_not_judged_by_the_rate_or_the_end_of_training() -> None:
    """Little KL at the kept step, and an accuracy that rose to the end: neither more rate nor more steps."""
    still = run(pairs(0.05 * margins(0.58)), kl=0.05)
    assert stopped(20, 220, 2.0, still).remedy == "dpo.eval_pairs: 64"
    rising = run(pairs(margins(0.75)), log=log(**{"rewards/accuracies": np.linspace(0.4, 0.85, STEPS)}))
    assert names(rising) == ["stopped_too_soon"]
    assert stopped(60, 90, 2.0, rising).remedy == "dpo.max_steps: 60"


def test_a_stop_at_the_limit_is_reported_as_that_alone() -> None:
    metrics = {"dpo/kept_step": 0.0, "dpo/stopped_at_step": 60.0, "dpo/eval_kl": 12.0}
    start = run(pairs(np.zeros(PAIRS)), kl=0.0, metrics=metrics)
    assert names(start) == ["near_kl_limit"]


def without_kl(size: float) -> RunMeasurements:
    """Half of the pairs moved by ``size`` one way, half the other: no KL was measured."""
    measured = run(pairs(size * np.where(np.arange(PAIRS) % 2, 1.0, -1.0)), recipe(eval_pairs=0))
    report = evaluation(measured.pairs or pairs(margins()))
    del report["models"]["dpo"]["kl_sft"]
    metrics = {name: value for name, value in measured.metrics.items() if name != "dpo/eval_kl"}
    return replace(measured, evaluation=report, metrics=metrics)


def test_without_a_kl_single_margins_tell_whether_the_model_moved() -> None:
    """Margins of 0.1 nats are a model at rest; margins of 4 nats that cancel are one that moved."""
    still, moved = without_kl(0.1), without_kl(4.0)
    assert (still.kl, still.is_still(), moved.is_still()) == (None, True, False)
    (found,) = diagnose(still)
    assert found.name == "hardly_trained"
    assert found.remedy == "dpo.learning_rate: 6e-05"  # three times 2e-5
    assert "hardly_trained" not in names(moved)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"), [(-0.05, 0.02, True), (-0.05, -0.01, True), (-0.01, 0.02, False)]
)
def test_chosen_that_fall_while_rejected_rise_are_displaced(chosen: float, rejected: float, expected: bool) -> None:
    measured = pairs(margins())
    moved = replace(
        measured,
        chosen={**measured.chosen, "dpo": measured.chosen["sft"] + chosen * measured.chosen_tokens},
        rejected={**measured.rejected, "dpo": measured.rejected["sft"] + rejected * measured.rejected_tokens},
    )
    found = {finding.name: finding for finding in diagnose(run(moved))}
    assert ("displacement" in found) is expected
    if rejected > 0 and expected:
        assert "the rejected ones did not" in found["displacement"].what


def test_passes_that_were_learnt_by_heart_become_fewer() -> None:
    """Two passes with the best measurement in the second: one pass, not two again."""
    curve = {"rewards/accuracies": np.linspace(0.5, 0.99, STEPS)}
    held_out = [measured_at(step, 0.3 if step == 54 else 0.1, 0.02) for step in (18, 36, 54, 72, 90)]
    entries = [entry for entry in log(**curve) if "eval_reward_margin" not in entry]
    (twice,) = diagnose(run(pairs(margins(0.7)), recipe(num_train_epochs=2), log=[*entries, *held_out]))
    assert (twice.name, twice.remedy) == ("memorised", "dpo.num_train_epochs: 1")
    settings = recipe(max_steps=90)  # of 8 pairs, 360 in all: two passes as well
    (limited,) = diagnose(run(pairs(margins(0.7)), settings, log=[*entries, *held_out]))
    assert (limited.name, limited.remedy) == ("memorised", "dpo.max_steps: 54")


def test_more_steps_come_from_the_setting_that_limits_them() -> None:
    measured, curve = pairs(margins(0.75)), {"rewards/accuracies": np.linspace(0.4, 0.85, STEPS)}
    settings = recipe(max_steps=45)  # one pass of 360 pairs
    (found,) = diagnose(run(measured, settings, log=log(**curve)))
    assert (found.name, found.remedy) == ("stopped_too_soon", "dpo.max_steps: 90")
