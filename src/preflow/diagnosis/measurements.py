"""The measurements of one run, as its artifacts hold them: curves, per-pair log-probs, intervals, counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preflow.config import Recipe

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """Held-out pairs under every model.

    Attributes:
        sources: Each pair's file and row, N of them.
        chosen_tokens: Tokens of the better response, shape ``(N,)``.
        rejected_tokens: Tokens of the other one, shape ``(N,)``.
        chosen: Summed log-probs of the better response by model, nats, shape ``(N,)`` each.
        rejected: The same for the other one.
        cues: By cue of form (a list, an exclamation mark): 1 where chosen alone has it, -1 where rejected alone does, 0
            elsewhere, shape ``(N,)`` each.
    """

    sources: tuple[str, ...]
    chosen_tokens: Vector
    rejected_tokens: Vector
    chosen: Mapping[str, Vector]
    rejected: Mapping[str, Vector]
    cues: Mapping[str, Vector] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], cues: Mapping[str, Vector] | None = None) -> "PairMeasures":
        """From the rows of an evaluation's ``pairs.json``."""

        def column(name: str) -> Vector:
            return np.array([row[name] for row in rows], dtype=np.float64)

        models = [name for name in ("base", "sft", "dpo") if rows and f"chosen_logprob_{name}" in rows[0]]
        return cls(
            sources=tuple(str(row["source"]) for row in rows),
            chosen_tokens=column("chosen_tokens"),
            rejected_tokens=column("rejected_tokens"),
            chosen={name: column(f"chosen_logprob_{name}") for name in models},
            rejected={name: column(f"rejected_logprob_{name}") for name in models},
            cues=cues or {},
        )

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def reference(self) -> str:
        """The model that rewards are measured against."""
        return "sft" if "sft" in self.chosen else "base"

    def margins(self) -> Vector:
        """By how many nats the trained model moved chosen more than rejected, shape ``(N,)``."""
        new, old = "dpo", self.reference
        return (self.chosen[new] - self.chosen[old]) - (self.rejected[new] - self.rejected[old])

    def per_token(self, model: str) -> Vector:
        """Chosen's mean log-prob per token minus rejected's under one model, nats, shape ``(N,)``."""
        return self.chosen[model] / self.chosen_tokens - self.rejected[model] / self.rejected_tokens


@dataclass(frozen=True, slots=True)
class RunMeasurements:
    """All that one run measured.

    Attributes:
        recipe: Its settings.
        evaluation: ``evaluation.json``.
        pairs: The held-out pairs; none where there is no aligned model.
        log: Logged steps of the DPO stage.
        metrics: Headline metrics of all stages, and what MLflow alone has: memory in GiB, seconds.
        sft_log: Logged steps of the SFT stage.
        data: What data validation reported of the pairs.
        choice: What the range test of the learning rate found; empty where none was run.
        judge: What a judge found of the aligned model's answers over the reference's; empty where none was asked.
    """

    recipe: Recipe
    evaluation: Mapping[str, Any]
    pairs: PairMeasures | None = None
    log: Sequence[Mapping[str, float]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    sft_log: Sequence[Mapping[str, float]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, model: str, name: str) -> Mapping[str, float] | None:
        """A measure of one model with its interval; None where it has none."""
        found = self.evaluation["models"].get(model, {}).get(name)
        return found if isinstance(found, Mapping) else None

    @property
    def kl(self) -> float | None:
        """KL of the aligned model from its reference, nats per response: sampled, else along held-out responses."""
        sampled = self.measure("dpo", f"kl_{self.evaluation.get('reference', 'base')}")
        return self.metrics.get("dpo/eval_kl") if sampled is None else sampled["value"]

    @property
    def rate(self) -> float:
        """The peak learning rate of DPO."""
        assert self.recipe.dpo is not None
        return self.recipe.dpo.rate

    @property
    def passes(self) -> float:
        """Passes over its training pairs for which DPO was set up: ``max_steps`` says otherwise than the epochs."""
        dpo, pairs = self.recipe.dpo, self.metrics.get("dpo/pairs", 0.0)
        assert dpo is not None
        if dpo.max_steps <= 0 or not pairs:
            return dpo.num_train_epochs
        rows = dpo.per_device_train_batch_size * dpo.gradient_accumulation_steps
        return dpo.max_steps * rows * self.recipe.launch.num_processes / pairs

    @property
    def moved(self) -> float | None:
        """Mean margin of the log-probs over held-out pairs, nats; None without an aligned model."""
        return None if self.pairs is None or not len(self.pairs) else float(self.pairs.margins().mean())

    def curve(self, name: str) -> tuple[Vector, Vector]:
        """A logged number of the DPO stage: steps and values."""
        found = [(entry["step"], entry[name]) for entry in self.log if name in entry]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, dtype=np.float64), np.array(values, dtype=np.float64)

    def has_learnt(self) -> bool:
        """Whether held-out reward accuracy lies above chance, interval and all."""
        accuracy = self.measure("dpo", "reward_accuracy")
        return accuracy is not None and accuracy["low"] > 0.5

    def is_still(self) -> bool:
        """Whether the policy has hardly left its reference: little KL, and a mean margin of less than half a nat.

        Without a KL (no sampled responses, no held-out evaluations), whether single margins are as small: their mean is
        near zero also where large ones cancel.
        """
        if self.pairs is None or self.moved is None:
            return False
        if self.kl is None:
            return float(np.abs(self.pairs.margins()).mean()) < STILL_NATS
        return self.kl < STILL_KL and abs(self.moved) < STILL_NATS

    def held_out(self) -> list[Mapping[str, float]]:
        """Held-out evaluations during DPO, in order, that of the start first."""
        return [entry for entry in self.log if "eval_reward_margin" in entry]


#: KL in nats per response, and mean margin in nats, below which a policy counts as its reference still.
STILL_KL = 0.2
STILL_NATS = 0.5


def tail(values: Vector, share: float = 0.2) -> float:
    """Mean of the last part of a curve; NaN where there is none."""
    return float(values[-max(1, math.ceil(share * len(values))) :].mean()) if len(values) else math.nan
