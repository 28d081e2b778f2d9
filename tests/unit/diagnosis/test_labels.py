"""Flipped labels are distinguished from a weak signal; contradictory rows are read from a report of validation."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from preflow.config.validation import ValidationSettings
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.labels import flipped_share
from preflow.diagnosis.measurements import RunMeasurements, Vector
from tests.unit.diagnosis.runs import pairs, recipe, run
from tests.unit.diagnosis.test_diagnose import flipped
from tests.unit.expectations.gate_support import gate, spec, write

SEEDS = 100


def is_noise(margins: Vector) -> bool:
    return "label_noise" in [finding.name for finding in diagnose(run(pairs(margins)))]


@pytest.mark.parametrize("count", [120, 200, 400])
@pytest.mark.parametrize("accuracy", [0.6, 0.65, 0.7])
def test_a_weak_signal_is_no_label_noise(accuracy: float, count: int) -> None:
    rng = np.random.default_rng(0)
    mean = NormalDist().inv_cdf(accuracy)
    assert sum(is_noise(3 * rng.normal(mean, 1, count)) for _ in range(SEEDS)) <= 3


@pytest.mark.parametrize("count", [120, 200, 400])
@pytest.mark.parametrize("share", [0.2, 0.3])
def test_flipped_labels_of_a_strong_signal_are_found(share: float, count: int) -> None:
    """An accuracy of 0.95 on the labels as they should be."""
    rng = np.random.default_rng(0)
    mean = NormalDist().inv_cdf(0.95)
    sets = (3 * rng.normal(mean, 1, count) * np.where(rng.random(count) < share, -1, 1) for _ in range(SEEDS))
    assert sum(is_noise(margins) for margins in sets) >= 95


def test_heavy_tails_are_no_label_noise() -> None:
    rng = np.random.default_rng(0)
    assert sum(is_noise(3 * (rng.standard_t(4, 200) + 0.4)) for _ in range(SEEDS)) <= 3


def test_the_flipped_share_is_that_of_the_mixture() -> None:
    """Standard error of a share of 0.25 of 4000: 0.007."""
    rng = np.random.default_rng(0)
    clear = rng.normal(3, 1, 4000)
    flips = np.where(np.arange(4000) < 1000, -1, 1)
    assert flipped_share(clear * flips)[0] == pytest.approx(0.25, abs=0.02)
    assert flipped_share(-clear * flips)[0] == pytest.approx(0.75, abs=0.02)
    assert flipped_share(np.zeros(9)) == (0.0, 0.0)


def test_rows_against_every_model_are_named() -> None:
    measured = flipped().pairs
    assert measured is not None
    (noise,) = [finding for finding in diagnose(flipped()) if finding.name == "label_noise"]
    places = [measured.sources.index(row) for row in noise.rows]
    assert places
    for model in ("base", "sft", "dpo"):
        assert (measured.per_token(model)[places] < 0).all()
    assert (measured.margins()[places] < 0).all()


def test_a_loss_for_flipped_labels_is_not_proposed_again() -> None:
    measured = flipped().pairs
    (found,) = diagnose(run(measured, recipe(loss_type="robust", label_smoothing=0.3)))
    assert (found.name, found.remedy) == ("label_noise", "new labels for pairs like the named rows")
    (weighted,) = diagnose(run(measured, recipe(loss_type=["sigmoid", "hinge"], loss_weights=[1.0, 1.0])))
    assert weighted.remedy.startswith("dpo.loss_type: robust with dpo.loss_weights: null with dpo.label_smoothing: 0.3")


@pytest.mark.slow
def test_contradictory_rows_are_those_of_the_report(tmp_path: Path) -> None:
    """Twenty rows say the opposite of twenty others, and sixty are fine."""
    rows = [{"prompt": f"Question {n}?", "chosen": f"Kind {n}.", "rejected": f"Rude {n}."} for n in range(80)]
    opposite = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:20]]
    settings = ValidationSettings(maximum_set_aside=1.0, severity={"one_sided_opening": "off"}, recommended_pairs=0)
    asked = spec({"settings": settings}, preferences=write(tmp_path / "p.jsonl", [*opposite, *rows]))
    _, report, _ = gate(asked, tmp_path / "out")
    (found,) = diagnose(run(data=report["preferences"]))
    assert found.name == "contradictions"
    assert found.evidence == "40 of 100 rows: 40 contradiction"
    assert [place.rpartition("/")[2] for place in found.rows] == [f"p.jsonl:{number}" for number in (1, 2, 3, 4, 5)]


def test_a_cue_explains_what_looks_like_flipped_labels() -> None:
    """Rewards follow a mark that speaks against the label in three of ten pairs: margins have two humps."""
    rng = np.random.default_rng(0)
    marks = np.where(np.arange(200) < 60, -1.0, 1.0)
    margins = 3 * marks + rng.normal(0, 1, 200)
    assert is_noise(margins)
    found: RunMeasurements = run(pairs(margins, cues={"an exclamation mark": marks}))
    assert [finding.name for finding in diagnose(found)] == ["no_signal_beyond_cue"]
