"""Measurements of runs that never were: a healthy one, and the same with one trouble planted."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from preflow.config import Recipe
from preflow.diagnosis.measurements import PairMeasures, RunMeasurements, Vector
from preflow.maths.intervals import bootstrap_mean, wilson

PAIRS, STEPS = 200, 90


def recipe(tuning: str = "lora", **dpo: Any) -> Recipe:
    """A two-stage recipe."""
    settings = {"learning_rate": 2e-5, "beta": 0.1, **dpo}
    sft = {name: value for name, value in settings.items() if name == "lora_r"}
    return Recipe.model_validate(
        {
            "model_name": "m",
            "tuning": tuning,
            "sft": {"dataset": "a.jsonl", **sft},
            "dpo": {"dataset": "b.jsonl", **settings},
        }
    )


def pairs(margins: Vector, **changes: Any) -> PairMeasures:
    """Pairs whose log-probs DPO moved apart by ``margins`` nats, half on each side."""
    count = len(margins)
    rng = np.random.default_rng(5)
    lengths = rng.integers(20, 60, (2, count)).astype(np.float64)
    before = -1.5 * lengths + rng.normal(0, 6, (2, count))
    measures = PairMeasures(
        sources=tuple(f"b.jsonl:{row}" for row in range(1, count + 1)),
        chosen_tokens=lengths[0],
        rejected_tokens=lengths[1],
        chosen={"base": before[0] - 3, "sft": before[0], "dpo": before[0] + 0.5 * margins},
        rejected={"base": before[1] - 3, "sft": before[1], "dpo": before[1] - 0.5 * margins},
    )
    return replace(measures, **changes)


def margins(share: float = 0.9, size: float = 3.0, count: int = PAIRS) -> Vector:
    """Margins of which so many are above zero, the surest the most."""
    rng = np.random.default_rng(7)
    values = rng.permutation(np.linspace(0.05, 2 * size, count))
    wrong = np.argsort(values)[: round((1 - share) * count)]
    values[wrong] *= -1
    return values


def log(**curves: Any) -> list[dict[str, float]]:
    """A training log; a number stands for every step."""
    steps = np.arange(1, STEPS + 1)
    usual: dict[str, Any] = {
        "loss": np.linspace(0.693, 0.5, STEPS),
        "grad_norm": 2 + 0.5 * np.sin(steps),
        "learning_rate": 2e-5,
        "entropy": 1.5,
        "rewards/accuracies": np.concatenate([np.linspace(0.5, 0.85, 30), np.full(60, 0.85)]),
        "rewards/chosen": np.concatenate([[1e-6], np.linspace(0.01, 0.2, STEPS - 1)]),
        "rewards/rejected": np.concatenate([[1e-6], -np.linspace(0.01, 0.2, STEPS - 1)]),
    }
    columns = {name: np.broadcast_to(values, (STEPS,)) for name, values in {**usual, **curves}.items()}
    entries = [{name: float(values[i]) for name, values in columns.items()} | {"step": i + 1} for i in range(STEPS)]
    held_out = [measured_at(step, step / 300, 0.02 * (step > 0), step / 100) for step in range(0, STEPS + 1, 15)]
    return [*entries, *held_out]


def measured_at(step: int, margin: float, error: float, kl: float = 1.0) -> dict[str, float]:
    """A held-out evaluation during DPO; the error is the margin's standard error."""
    return {"step": step, "eval_reward_margin": margin, "eval_reward_margin_se": error, "eval_kl": kl}


def evaluation(measured: PairMeasures, beta: float = 0.1, kl: float = 1.0, **changes: Any) -> dict[str, Any]:
    """What the evaluation reports of pairs."""
    moved = measured.margins()
    right = int((moved > 0).sum())
    changes_of = {
        "chosen_logp_change": (measured.chosen["dpo"] - measured.chosen["sft"]) / measured.chosen_tokens,
        "rejected_logp_change": (measured.rejected["dpo"] - measured.rejected["sft"]) / measured.rejected_tokens,
        "reward_margin": beta * moved,
    }
    dpo = {name: bootstrap_mean(values, samples=200).to_json() for name, values in changes_of.items()}
    dpo |= {"reward_accuracy": wilson(right, len(moved)).to_json(), "kl_sft": {"value": kl, "se": 0.1}}
    return {
        "models": {"base": {"perplexity": 9.0}, "sft": {"perplexity": 6.0}, "dpo": dpo},
        "comparison": {"preference_accuracy_gain": {"value": 0.05, "low": 0.01, "high": 0.09}},
        "n_pairs": len(moved),
        "reference": "sft",
        **changes,
    }


def run(
    measured: PairMeasures | None = None,
    settings: Recipe | None = None,
    metrics: Mapping[str, float] | None = None,
    kl: float = 1.0,
    **changes: Any,
) -> RunMeasurements:
    """A healthy run, but for what is given."""
    measured = pairs(margins()) if measured is None else measured
    settings = settings or recipe()
    assert settings.dpo is not None
    healthy = RunMeasurements(
        recipe=settings,
        evaluation=evaluation(measured, settings.dpo.beta, kl),
        pairs=measured,
        log=log(),
        metrics={"dpo/steps": float(STEPS), "dpo/pairs": 360.0, "dpo/eval_kl": 0.9 * kl, **(metrics or {})},
        sft_log=[{"step": step, "loss": 2.0} for step in range(1, 20)],
        data={"rows_in": 600, "findings": {"near_copy": {"count": 40}}},
    )
    return replace(healthy, **changes)


def followed(settings: Recipe, remedy: str) -> Recipe | None:
    """The recipe after each ``setting: value`` of a remedy; none where it names no setting."""
    named = re.findall(r"((?:sft\.|dpo\.)\w+|lora_r|bf16|use_4bit|strategy): (\[.*?\]|[^\s,]+)", remedy)
    data = settings.model_dump(mode="json")
    for name, text in named:
        section, _, setting = name.rpartition(".")
        sections = [section] if section else ["sft", "dpo"] if name == "lora_r" else []
        for place in [data[each] for each in sections] or [data]:
            place[setting] = yaml.safe_load(text)
    kept = Recipe.stages[data["strategy"]]
    data |= {stage: data[stage] if stage in kept else None for stage in ("sft", "dpo")}
    return Recipe.model_validate(data) if named else None
