"""Every planted trouble is found by its name, and a healthy run has none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from preflow.config import Recipe
from preflow.diagnosis.data import pairs_needed
from preflow.diagnosis.diagnose import RUN_FINDINGS, diagnose
from preflow.diagnosis.measurements import RunMeasurements
from preflow.diagnosis.movement import fitting_rate
from preflow.diagnosis.other_stages import resources
from tests.unit.diagnosis.runs import PAIRS, STEPS, evaluation, followed, log, margins, pairs, recipe, run

STILL: dict[str, Any] = {"measured": pairs(0.05 * margins(0.58)), "kl": 0.05}


def still(**settings: Any) -> RunMeasurements:
    return run(settings=recipe(**settings), metrics={"dpo/steps": 138.0}, **STILL)


def few_steps() -> RunMeasurements:
    return run(metrics={"dpo/steps": 12.0}, **STILL)


def put_back() -> RunMeasurements:
    """Early stopping at step 200: nothing was better than the start, whose weights were kept."""
    stop = {"dpo/kept_step": 0.0, "dpo/stopped_at_step": 200.0, "dpo/eval_kl": 0.05}
    return run(pairs(np.zeros(PAIRS)), metrics=stop, kl=0.0)


def rising() -> RunMeasurements:
    measured = pairs(margins(0.75))
    return run(measured, log=log(**{"rewards/accuracies": np.linspace(0.4, 0.85, STEPS)}))


def by_heart() -> RunMeasurements:
    curve = {"rewards/accuracies": np.linspace(0.5, 0.99, STEPS)}
    return run(pairs(margins(0.7)), recipe(num_train_epochs=4), log=log(**curve))


def displaced(settings: Recipe | None = None) -> RunMeasurements:
    measured = pairs(margins())
    lost = 0.4 * measured.chosen_tokens
    chosen = {**measured.chosen, "dpo": measured.chosen["dpo"] - lost}
    rejected = {**measured.rejected, "dpo": measured.rejected["dpo"] - lost}
    return run(replace(measured, chosen=chosen, rejected=rejected), settings)


def spikes() -> RunMeasurements:
    """A gradient of twenty times the usual, after which the loss is twice as high."""
    norms, losses = np.full(STEPS, 2.0), np.full(STEPS, 0.6)
    norms[60] = 40.0
    losses[60:] = 1.2
    return run(log=log(grad_norm=norms, loss=losses))


def rounding() -> RunMeasurements:
    noisy = log()
    noisy[0] |= {"rewards/chosen": 0.09, "rewards/rejected": -0.03}  # beta 0.1: 0.9 nats at step 0
    return run(pairs(0.3 * margins()), log=noisy)


def no_preference() -> RunMeasurements:
    healthy = run()
    worse = {"preference_accuracy_gain": {"value": -0.08, "low": -0.12, "high": -0.04}}
    return replace(healthy, evaluation={**healthy.evaluation, "comparison": worse})


def length(share_longer: float) -> RunMeasurements:
    """Rewards follow length alone; so many pairs have the longer answer as chosen."""
    rng = np.random.default_rng(3)
    longer = rng.random(PAIRS) < share_longer
    differs = np.where(longer, 1, -1) * rng.integers(5, 30, PAIRS)
    tokens = rng.integers(40, 60, PAIRS).astype(np.float64)
    moved = 0.2 * differs + rng.normal(0, 0.5, PAIRS)
    return run(pairs(moved, chosen_tokens=tokens + differs, rejected_tokens=tokens))


def exclamations() -> RunMeasurements:
    """Rewards follow exclamation marks, which say nothing about the label, and a little else."""
    rng = np.random.default_rng(4)
    marks = np.where(rng.random(PAIRS) < 0.53, 1.0, -1.0)
    moved = 2 * marks + 1.5 + rng.normal(0, 1.2, PAIRS)
    return run(pairs(moved, cues={"an exclamation mark": marks}))


def flipped() -> RunMeasurements:
    """Three of ten labels are flipped, at every size of the margin."""
    rng = np.random.default_rng(2)
    flips = np.where(rng.permutation(PAIRS) < 0.3 * PAIRS, -1, 1)
    return run(pairs(rng.normal(4, 1, PAIRS) * flips))


def contradicted() -> RunMeasurements:
    found = {
        "contradiction": {"count": 90, "rows": {"b.jsonl": list(range(3, 93))}, "example": "A over B in row 4"},
        "preference_cycle": {"count": 6, "rows": {"c.jsonl": [1, 2, 3, 4, 5, 6]}, "example": "A over B over C over A"},
    }
    return run(data={"rows_in": 600, "findings": found})


def few() -> RunMeasurements:
    return run(pairs(margins(0.6, count=40)))


def chance(count: int = 500) -> RunMeasurements:
    rng = np.random.default_rng(1)
    return run(pairs(margins(1.0, count=count) * np.where(rng.permutation(count) < count // 2, -1, 1)))


def reversed_labels(**changes: Any) -> RunMeasurements:
    """Nine of ten held-out pairs are ordered the wrong way; chosen responses stay where they were."""
    measured = pairs(margins(0.1))
    moved = measured.margins()
    chosen = {**measured.chosen, "dpo": measured.chosen["sft"]}
    rejected = {**measured.rejected, "dpo": measured.rejected["sft"] - moved}
    return run(replace(measured, chosen=chosen, rejected=rejected), **changes)


def ceiling() -> RunMeasurements:
    measured = pairs(margins())
    moved = measured.margins()
    gap = 0.5 * measured.chosen_tokens
    sft = {"chosen": -1.0 * measured.chosen_tokens, "rejected": -2.0 * measured.rejected_tokens}
    chosen = {**measured.chosen, "sft": sft["chosen"], "dpo": sft["chosen"] + 0.5 * moved}
    rejected = {**measured.rejected, "sft": sft["rejected"], "dpo": sft["rejected"] - 0.5 * moved}
    assert (gap > 0).all()
    return run(replace(measured, chosen=chosen, rejected=rejected))


def foreign() -> RunMeasurements:
    return run(log=log(entropy=0.3))  # chosen takes 1.5 nats per token


def worse_sft(perplexity: float, loss: float, epochs: int) -> RunMeasurements:
    measured, settings = pairs(margins()), recipe()
    assert settings.sft is not None
    settings = settings.model_copy(update={"sft": settings.sft.model_copy(update={"num_train_epochs": epochs})})
    found = evaluation(measured)
    found["models"]["sft"]["perplexity"] = perplexity
    return run(measured, settings, evaluation=found, sft_log=[{"step": step, "loss": loss} for step in range(20)])


PLANTED: dict[str, Callable[[], RunMeasurements]] = {
    "hardly_trained": still,
    "too_few_steps": few_steps,
    "beta_too_high": lambda: still(beta=1.5),
    "adapter_too_small": lambda: still(lora_r=1, learning_rate=1e-3),
    "stopped_too_soon": rising,
    "memorised": by_heart,
    "near_kl_limit": lambda: run(kl=9.0),
    "stopped_early": put_back,
    "displacement": displaced,
    "unstable": spikes,
    "broken_precision": rounding,
    "reward_without_preference": no_preference,
    "cue_exploited": exclamations,
    "no_signal_beyond_cue": lambda: length(0.8),
    "label_noise": flipped,
    "contradictions": contradicted,
    "too_few_pairs": few,
    "not_learnable": chance,
    "labels_reversed": reversed_labels,
    "reference_at_ceiling": ceiling,
    "off_policy": foreign,
    "sft_memorised": lambda: worse_sft(8.0, 0.5, 4),
    "sft_made_worse": lambda: worse_sft(12.0, 2.0, 1),
    "memory_above_estimate": lambda: run(metrics={"dpo/memory_predicted_gib": 2.0, "dpo/memory_measured_gib": 3.0}),
}
#: What to change, worked out by hand from what is planted.
REMEDIES = {
    "hardly_trained": "dpo.learning_rate: 8.9e-05",  # 2e-5 times the root of 1 / 0.05
    # 12 steps of 8 pairs in one epoch, 60 are wanted: 5 epochs are too many, 8 / 5 is one pair per step
    "too_few_steps": "dpo.per_device_train_batch_size: 1 with dpo.gradient_accumulation_steps: 1",
    "beta_too_high": "dpo.beta: 0.1",
    "adapter_too_small": "lora_r: 16",
    "stopped_too_soon": "dpo.num_train_epochs: 2",
    "memorised": "dpo.num_train_epochs: 2",  # half of four, as margins rose to the end
    "near_kl_limit": "dpo.learning_rate: 9.4e-06",  # 2e-5 times the root of (10 / 5) / 9
    "stopped_early": "dpo.learning_rate: 8.9e-05",  # as above, from the KL at which it was stopped
    "displacement": "dpo.loss_type: [sigmoid, sft] with dpo.loss_weights: [1, 0.2]",
    "unstable": "dpo.learning_rate: 6.7e-06",  # a third: norms of 2 are clipped to 1 as it is
    "broken_precision": "bf16: false",
    "reward_without_preference": "dpo.beta: 0.3",
    "cue_exploited": "more whose rejected response is the one with an exclamation mark",
    "no_signal_beyond_cue": "dpo.ld_alpha: 0.5",
    "label_noise": "dpo.loss_type: robust with dpo.label_smoothing: 0.3",
    "contradictions": "new labels for these 96 rows",  # 90 + 6
    # 24 of 40 are 0.6, Wilson's half width 0.14528: 40 x (2.8016 / 1.96 x 0.14528 / 0.1)^2 = 172.5
    "too_few_pairs": "173 held-out pairs",
    "not_learnable": "1440 training pairs",  # four times 360
    "labels_reversed": "chosen and rejected exchanged",
    "reference_at_ceiling": "strategy: sft",
    "off_policy": "sft.num_train_epochs: 2",
    "sft_memorised": "sft.num_train_epochs: 2",
    "sft_made_worse": "sft.learning_rate: 6.7e-05",  # a third of 2e-4
    "memory_above_estimate": "dpo.per_device_train_batch_size: 2",
}


#: What some remedies would set, and what makes a recipe refuse others.
VARIANTS: list[dict[str, Any]] = [
    {"max_steps": 60},
    {"num_train_epochs": 2},
    {"num_train_epochs": 4},
    {"max_tokens_per_batch": 512, "gradient_checkpointing": True},
    {"auto_find_batch_size": True, "per_device_train_batch_size": 1},
    {"loss_type": "robust", "label_smoothing": 0.3, "ld_alpha": 0.0, "beta": 2.0},
    {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "ld_alpha": 0.5, "beta": 3.0},
    {"loss_type": "ipo", "beta": 0.03, "max_grad_norm": 1e-3, "eval_pairs": 64},
    {"tuning": "full", "learning_rate": 1e-5},
    {"loss_type": "hinge", "use_weighting": False, "learning_rate": 1e-3},
]


def test_a_healthy_run_has_no_finding() -> None:
    assert diagnose(run()) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_trouble_is_the_only_finding(name: str) -> None:
    found = diagnose(PLANTED[name]())
    assert [finding.name for finding in found] == [name]
    assert REMEDIES[name] in found[0].remedy
    assert any(character.isdigit() for character in found[0].evidence)


def test_every_finding_is_planted_and_documented() -> None:
    assert PLANTED.keys() == RUN_FINDINGS.keys() == REMEDIES.keys()


@pytest.mark.parametrize("name", PLANTED)
def test_a_remedy_is_a_change_that_the_recipe_accepts(name: str) -> None:
    measured = PLANTED[name]()
    (found,) = diagnose(measured)
    changed = followed(measured.recipe, found.remedy)
    assert (changed is None) is (name in IN_WORDS)
    assert changed is None or changed != measured.recipe


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_remedies_of_other_recipes_are_changes_that_they_accept(settings: dict[str, Any]) -> None:
    """The troubles are those of the plants; a recipe that rules one out has none."""
    for plant in PLANTED.values():
        measured = replace(plant(), recipe=recipe(**settings))
        for found in diagnose(measured):
            changed = followed(measured.recipe, found.remedy)
            assert changed is None or changed != measured.recipe, found.remedy


#: What no setting changes.
IN_WORDS = {"cue_exploited", "contradictions", "too_few_pairs", "not_learnable", "labels_reversed"}


def test_findings_come_in_the_order_of_their_evidence() -> None:
    both = replace(PLANTED["near_kl_limit"](), data=PLANTED["contradictions"]().data)
    found = diagnose(both)
    assert {"near_kl_limit", "contradictions"} <= {finding.name for finding in found}
    assert [finding.strength for finding in found] == sorted((finding.strength for finding in found), reverse=True)


@pytest.mark.parametrize(("taken", "names"), [(0.93, []), (0.97, ["memory_above_estimate"])])
def test_a_heap_on_the_cpu_may_hold_what_it_is_allowed_to(taken: float, names: list[str]) -> None:
    """0.6 GiB estimated, 0.5 of them tensors: 0.6 times 1.6 is 0.96."""
    estimate = {"sft/memory_predicted_gib": 0.6, "sft/memory_predicted_tensors_gib": 0.5}
    found = diagnose(run(metrics={**estimate, "sft/memory_measured_gib": taken}))
    assert [finding.name for finding in found] == names


def test_the_rate_follows_the_square_law_of_the_divergence() -> None:
    """Measured on 551 human pairs: KL 0.05 at 2e-5, 1.15 at 1e-4, 3.99 at 2e-4."""
    assert fitting_rate(2e-5, 0.05, 1.15) == pytest.approx(1e-4, rel=0.05)
    assert fitting_rate(1e-4, 1.15, 3.99) == pytest.approx(2e-4, rel=0.08)
    assert fitting_rate(1e-6, 0.0) == pytest.approx(3e-5)  # no more than thirty times


def test_pairs_needed_are_those_of_the_textbook() -> None:
    """Of a share of 0.6: (1.96 + 0.8416)^2 x 0.6 x 0.4 / 0.1^2 = 188.4, whatever number was measured."""
    half = 1.959964 * np.sqrt(0.6 * 0.4 / 100)
    assert pairs_needed(100, half, 0.1) == 189
    assert pairs_needed(400, half / 2, 0.1) == 189
    assert pairs_needed(100, 2 * half, 0.1) == 754  # several pairs of a prompt tell less: 4 x 188.4


def test_what_was_taken_is_named_beside_its_estimate() -> None:
    taken = {"dpo/memory_predicted_gib": 2.0, "dpo/memory_measured_gib": 1.9}
    seconds = {"dpo/work_seconds": 60.0, "evaluate/work_seconds": 30.0}
    lines = resources(run(metrics={**taken, **seconds}))
    assert "dpo took 1.90 GiB above the loaded model, 2.00 were estimated" in lines
    assert any(line.startswith("dpo took 67% of the time") and "1024" in line for line in lines)


def test_a_run_without_an_aligned_model_is_asked_about_its_fine_tuning_alone() -> None:
    report = {"models": {"base": {"perplexity": 6.0}, "sft": {"perplexity": 12.0}}, "n_pairs": 0}
    found = diagnose(replace(worse_sft(12.0, 2.0, 1), evaluation=report, pairs=None, log=()))
    assert [finding.name for finding in found] == ["sft_made_worse"]
